"""Which points a forecast is made from: one rank with the whole batch, and with a rank's share of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from moesd_dist.records import LayoutSpec, SweepPoint


def is_shared(point: SweepPoint) -> bool:
    """Whether its batch or its experts lie on several ranks."""
    return point.layout.dp_size > 1 or point.layout.ep_size > 1


def share_of(point: SweepPoint) -> int:
    """The most sequences that one of its ranks has."""
    return -(-point.batch_size // point.layout.dp_size)


def with_single_ranks(points: Sequence[SweepPoint]) -> tuple[SweepPoint, ...]:
    """The points that a forecast is made from, then all points; each once.

    Every point over several ranks brings two on a single one: what the batch does to experts is
    seen with all of it, what it does to everything else with a rank's share.
    """
    brought = (twin for point in points if is_shared(point) for twin in _twins(point))
    single = (point for point in points if not is_shared(point))
    first = sorted(dict.fromkeys([*single, *brought]), key=lambda p: p.batch_size)
    return tuple(dict.fromkeys([*first, *points]))


def _twins(point: SweepPoint) -> Iterator[SweepPoint]:
    alone = replace(point, layout=LayoutSpec(tp_size=point.layout.tp_size))
    for batch_size in dict.fromkeys((point.batch_size, share_of(point))):
        twin = replace(alone, batch_size=batch_size)
        yield from dict.fromkeys((twin.baseline, twin))
