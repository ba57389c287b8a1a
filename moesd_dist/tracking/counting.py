"""Which runs of a sweep count: of every point at most one, the same for everybody who reads it."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mlflow import MlflowClient
from mlflow.entities import Run, RunTag

from moesd_dist.records import Failed, Infeasible, Measurement
from moesd_dist.tracking.labels import filled
from moesd_dist.tracking.packing import unpack
from moesd_dist.tracking.point_runs import FINISHED_TAG

WITHDRAWN = "withdrawn"  # in place of "true"
WHY_TAG = "moesd.withdrawn"
SECOND = "a second record"  # of a point that is finished: no word on the point itself

_Rank = tuple[bool, int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Outcomes and withdrawals by point id, and the runs to see to."""

    finished: dict[str, Measurement | Infeasible] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)  # and not finished since
    second: list[str] = field(default_factory=list)  # run ids: finished, but another one counts
    cut_short: list[Run] = field(default_factory=list)


def count(runs: Iterable[Run]) -> Counted:
    """A measurement counts before an `Infeasible`, then the newer run, in whatever order they come."""
    counted = Counted()
    ranks: dict[str, _Rank] = {}
    with _uncollected():
        for run in runs:
            _count(counted, ranks, run)
    counted.withdrawn.difference_update(counted.finished)
    return counted


@contextmanager
def _uncollected() -> Iterator[None]:
    """A large sweep is read in a third of the time: it makes millions of objects and little garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _count(counted: Counted, ranks: dict[str, _Rank], run: Run) -> None:
    tags = run.data.tags
    if tags.get(FINISHED_TAG) == "true":
        _count_finished(counted, ranks, run)
    elif tags.get(FINISHED_TAG) != WITHDRAWN:
        counted.cut_short.append(run)
    elif tags.get(WHY_TAG) != SECOND:
        counted.withdrawn.add(tags["moesd.point_id"])


def _count_finished(counted: Counted, ranks: dict[str, _Rank], run: Run) -> None:
    outcome = unpack(run.data.tags)
    if isinstance(outcome, Failed):
        return
    point_id = outcome.point.point_id
    rank = (isinstance(outcome, Measurement), int(run.info.start_time or 0), str(run.info.run_id))
    other = ranks.get(point_id)
    if other is None or rank > other:
        ranks[point_id], counted.finished[point_id] = rank, outcome
    if other is not None:
        counted.second.append(min(rank, other)[-1])


def retire(client: MlflowClient, run_id: str, why: str) -> None:
    """A finished run no longer counts; its data stays."""
    tags = {**filled({WHY_TAG: why}), FINISHED_TAG: WITHDRAWN}
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
