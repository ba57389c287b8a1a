"""Measures hosts and the links between them on a cluster: every layout once, one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from moesd_dist.records.calibration import COUNTS, Calibration
from moesd_dist.sweep.schedule.needs import Needs

if TYPE_CHECKING:
    from moesd_dist.engines.transformers.calibration import Effort, Findings
    from moesd_dist.sweep.cluster.crew import ClusterSettings

WITHIN_S = 1800.0  # for a layout; slow links take minutes

Told = Callable[[Needs], None]


def calibrate(
    layouts: Sequence[Needs],
    *,
    settings: ClusterSettings,
    effort: Effort,
    within_s: float = WITHIN_S,
    told: Told = lambda _: None,
) -> Calibration:
    """`told` hears of each layout before it is measured; a rank alone is the first of them.

    On the cluster that this process has joined, else on the one of the settings, which is then left
    again. ValueError if it could never hold a layout; RanksFailed if a rank breaks.
    """
    from moesd_dist.engines.transformers.calibration import measure
    from moesd_dist.sweep.cluster.calibrate import on_cluster, on_ranks

    found: list[list[Findings]] = []
    with on_cluster(settings):
        for needs in _with_one_alone(layouts):
            told(needs)
            found.append(
                on_ranks(
                    partial(measure, nodes=needs.nodes, effort=effort),
                    needs=needs,
                    settings=settings,
                    threads=effort.threads,
                    within_s=within_s,
                )
            )
    return _calibration(found, effort)


def _with_one_alone(layouts: Sequence[Needs]) -> list[Needs]:
    alone = replace(layouts[0], ranks=1, nodes=1)
    return list(dict.fromkeys([alone, *layouts]))


def _calibration(layouts: Sequence[Sequence[Findings]], effort: Effort) -> Calibration:
    """Collectives are the same on all ranks of a layout, rates are each rank's own."""
    timed = [times for ranks in layouts for times in ranks[0].collectives]
    models = sorted({rank.cpu_model for ranks in layouts for rank in ranks})
    return Calibration(
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        threads=effort.threads,
        layer_bytes=effort.layer_bytes,
        cpu_model="; ".join(models),
        collectives=tuple(times for times in timed if times.collective != COUNTS),
        counts=tuple(times for times in timed if times.collective == COUNTS),
        rates=tuple(rank.rates for ranks in layouts for rank in ranks),
    )
