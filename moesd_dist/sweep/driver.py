"""Runs a sweep: hands groups to an executor, writes what comes back, and says how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from moesd_dist.ports import Engine, Tracker
from moesd_dist.records import Failed, Infeasible, Measurement, Outcome, SweepPoint
from moesd_dist.sweep.pairing import (
    EngineKey,
    Group,
    LoadLimit,
    engine_key,
    failure,
    groups,
    measure_group,
)
from moesd_dist.sweep.statistics import metrics

MakeEngine = Callable[[EngineKey], Engine]


class Executor(Protocol):
    """Measures groups somewhere and yields each as soon as it is done, in any order."""

    def run(self, todo: Sequence[Group]) -> Iterator[tuple[Group, list[Outcome]]]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What to measure next; without points the sweep is over. `why` is for a person, or empty."""

    points: tuple[SweepPoint, ...]
    why: str = ""


class Plan(Protocol):
    """Decides what to measure from what is known so far."""

    def next_round(self, outcomes: Sequence[Outcome]) -> Round: ...


class WholeGrid:
    """The plan of an ordinary sweep: every point, in one round."""

    def __init__(self, points: Sequence[SweepPoint]) -> None:
        self._left = tuple(points)

    def next_round(self, outcomes: Sequence[Outcome]) -> Round:
        points, self._left = self._left, ()
        return Round(points=points)


class Progress(Protocol):
    """Told what happens, so that a person can be."""

    def begin(self, total: int, done: int) -> None: ...

    def begin_round(self, planned: Round) -> None: ...

    def advance(self, outcome: Outcome) -> None: ...

    def end(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """Everything known at the end, what earlier runs had finished included."""

    outcomes: tuple[Outcome, ...]
    reused: int  # finished by an earlier run of the same sweep
    ending: str = ""  # why it stopped before the grid was full; empty for a whole grid

    @property
    def measurements(self) -> list[Measurement]:
        return [o for o in self.outcomes if isinstance(o, Measurement)]

    @property
    def infeasible(self) -> list[Infeasible]:
        return [o for o in self.outcomes if isinstance(o, Infeasible)]

    @property
    def failed(self) -> list[Failed]:
        return [o for o in self.outcomes if isinstance(o, Failed)]


class InlineExecutor:
    """Measures in this process, one engine at a time: the same code path without Ray."""

    def __init__(self, make_engine: MakeEngine, limit: LoadLimit) -> None:
        self._make, self._limit = make_engine, limit
        self._engine: tuple[EngineKey, Engine] | None = None

    def run(self, todo: Sequence[Group]) -> Iterator[tuple[Group, list[Outcome]]]:
        sizes = [group.baseline.layout.dp_size for group in todo]
        if max(sizes, default=1) > 1:
            raise ValueError(
                "launcher=inline runs a single process, data-parallel ranks need one each; "
                f"got dp_size {max(sizes)}: use launcher=ray, or layout.dp_size=1"
            )
        for group in by_engine(todo):
            yield group, measure_or_fail(self._engine_for(group), group, self._limit)

    def close(self) -> None:
        if self._engine is not None:
            self._engine[1].close()
        self._engine = None

    def _engine_for(self, group: Group) -> Engine:
        key = engine_key(group)
        if self._engine is None or self._engine[0] != key:
            self.close()
            self._engine = (key, self._make(key))
        return self._engine[1]


def by_engine(todo: Sequence[Group]) -> list[Group]:
    """Groups that share an engine side by side, otherwise in the given order."""
    keys = {key: place for place, key in enumerate(dict.fromkeys(map(engine_key, todo)))}
    return sorted(todo, key=lambda group: keys[engine_key(group)])


def measure_or_fail(engine: Engine, group: Group, limit: LoadLimit) -> list[Outcome]:
    """A group that breaks becomes a `Failed` record for each of its points; the sweep goes on."""
    try:
        return measure_group(engine, group, limit)
    except Exception as error:
        return [failure(point, error) for point in group.wanted]


def run_sweep(
    points: Sequence[SweepPoint],
    tracker: Tracker,
    executor: Executor,
    progress: Progress,
    plan: Plan | None = None,
) -> SweepResult:
    """Measures what is missing: all of the points, or those that a plan chooses among them.

    Each outcome is written as soon as it arrives.
    """
    # What did not fit may fit now: asking again costs arithmetic, not a measurement.
    finished = {k: o for k, o in tracker.finished().items() if isinstance(o, Measurement)}
    wanted = {point.point_id for point in points}
    outcomes: list[Outcome] = [o for key, o in finished.items() if key in wanted]
    reused, plan = len(outcomes), plan or WholeGrid(points)
    progress.begin(len(points), reused)
    try:
        while (planned := plan.next_round(outcomes)).points:
            progress.begin_round(planned)
            done = {o.point.point_id for o in outcomes}
            for outcome in _measure(groups(planned.points, done), executor):
                found = metrics(outcome) if isinstance(outcome, Measurement) else {}
                tracker.record(outcome, found)
                outcomes.append(outcome)
                progress.advance(outcome)
    finally:
        progress.end()
        executor.close()
    place = {point.point_id: index for index, point in enumerate(points)}
    outcomes.sort(key=lambda outcome: place[outcome.point.point_id])
    return SweepResult(outcomes=tuple(outcomes), reused=reused, ending=planned.why)


def _measure(todo: Sequence[Group], executor: Executor) -> Iterator[Outcome]:
    for _, arrived in executor.run(todo) if todo else ():
        yield from arrived
