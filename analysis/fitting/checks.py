"""What must not be fitted together, said before anything is."""

from __future__ import annotations

from collections.abc import Sequence

from moesd_dist.records import Measurement


def check_sources(members: Sequence[Measurement]) -> None:
    """ValueError if simulated points stand beside measured ones."""
    simulated = sum(m.point.simulated for m in members)
    if 0 < simulated < len(members):
        raise ValueError(
            f"{simulated} simulated and {len(members) - simulated} measured points cannot be fitted"
            " as one: a formula would be fitted to itself; choose with where.engine=analytic or"
            " another engine"
        )


def check_pairs(members: Sequence[Measurement]) -> None:
    """ValueError for the first point whose repeats lack a baseline's."""
    for m in members:
        if not m.repeats or len(m.baseline) != len(m.repeats):
            point = m.point
            raise ValueError(
                f"a speedup needs a baseline for each repeat, B={point.batch_size}"
                f" gamma={point.gamma} has {len(m.repeats)} repeats and {len(m.baseline)} of its"
                " baseline; measure it again, or choose others with where.batch_size or where.gamma"
            )
