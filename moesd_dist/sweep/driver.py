"""Runs a sweep: hands groups to an executor, writes what comes back, and says how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from moesd_dist.ports import Engine
from moesd_dist.records import Failed, Infeasible, Measurement, Outcome, SweepPoint
from moesd_dist.records.slim import without_expert_load
from moesd_dist.sweep.arrival import Arrival
from moesd_dist.sweep.grouping import EngineKey, Group, engine_key, groups
from moesd_dist.sweep.ledger import Ledger
from moesd_dist.sweep.pairing import FOREIGN_GPU, LoadLimit, failure, measure_group
from moesd_dist.sweep.stopping import Stop

MakeEngine = Callable[[EngineKey], Engine]


class Executor(Protocol):
    """Measures groups somewhere and yields what came of them as soon as it is known, in any order.

    Once it is told to stop it finishes what runs, leaves the rest, and returns.
    """

    def run(self, todo: Sequence[Group]) -> Iterator[Arrival]: ...

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

    def note(self, text: str) -> None: ...

    def end(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """Everything known at the end, what earlier runs had finished included."""

    outcomes: tuple[Outcome, ...]
    reused: int  # finished by an earlier run of the same sweep
    ending: str = ""  # why it stopped before the grid was full; empty for a whole grid
    stopped: bool = False  # by a signal: some points were not even tried
    notes: tuple[str, ...] = ()  # failed attempts, lost nodes, drifts, in their order

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

    def __init__(
        self,
        make_engine: MakeEngine,
        limit: Callable[[EngineKey], LoadLimit],
        stop: Stop | None = None,
    ) -> None:
        self._make, self._limit, self._stop = make_engine, limit, Stop() if stop is None else stop
        self._engine: tuple[EngineKey, Engine] | None = None
        self._unloadable: dict[EngineKey, Failed] = {}

    def run(self, todo: Sequence[Group]) -> Iterator[Arrival]:
        measured = [group.baseline for group in todo if not group.baseline.simulated]
        sizes = [point.layout.dp_size for point in measured]
        if max(sizes, default=1) > 1:
            raise ValueError(
                "launcher=inline runs a single process, data-parallel ranks need one each; "
                f"got dp_size {max(sizes)}: use launcher=ray, or layout.dp_size=1"
            )
        for group in by_engine(todo):
            if self._stop:
                return
            yield Arrival(outcomes=tuple(self._measured(group)))

    def close(self) -> None:
        loaded, self._engine = self._engine, None
        if loaded is not None:
            loaded[1].close()

    def _measured(self, group: Group) -> list[Outcome]:
        """An engine that will not load fails the points of all its groups, and is tried once."""
        key = engine_key(group)
        if key not in self._unloadable:
            try:
                engine = self._engine_for(key)
            except Exception as error:
                self._unloadable[key] = failure(group.baseline, error)
            else:
                return measure_or_fail(engine, group, self._limit(key))
        return [replace(self._unloadable[key], point=point) for point in group.wanted]

    def _engine_for(self, key: EngineKey) -> Engine:
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
    ledger: Ledger,
    executor: Executor,
    progress: Progress,
    plan: Plan | None = None,
    stop: Stop | None = None,
) -> SweepResult:
    """Measures what is missing: all of the points, or those that a plan chooses among them.

    Each outcome is durable before the next is waited for.
    """
    # What did not fit may fit now: asking again costs arithmetic, not a measurement.
    finished = {k: o for k, o in ledger.finished().items() if isinstance(o, Measurement)}
    known: dict[str, Outcome] = {p.point_id: o for p in points if (o := finished.get(p.point_id))}
    reused, plan, stop = len(known), plan or WholeGrid(points), Stop() if stop is None else stop
    notes: list[str] = []
    progress.begin(len(points), reused)
    try:
        while not stop and (planned := plan.next_round(list(known.values()))).points:
            progress.begin_round(planned)
            todo = groups(planned.points, known)
            for arrival in executor.run(todo) if todo else ():
                _keep(arrival, known, ledger, progress)
                notes += arrival.notes
        ledger.settle()
    finally:
        progress.end()
        executor.close()
    place = {point.point_id: index for index, point in enumerate(points)}
    ordered = sorted(known, key=place.__getitem__)
    missing = len(points) - len(known)
    ending = f"stopped by {stop.asked_by} with {missing} points left" if stop else planned.why
    return SweepResult(
        outcomes=tuple(known[k] for k in ordered),
        reused=reused,
        ending=ending,
        stopped=bool(stop) and missing > 0,
        notes=tuple(notes),
    )


def _keep(arrival: Arrival, known: dict[str, Outcome], ledger: Ledger, progress: Progress) -> None:
    if arrival.notes or arrival.sentinels:
        ledger.note(notes=list(arrival.notes), sentinels=dict(arrival.sentinels))
    for text in arrival.notes:
        progress.note(text)
    if (crowded := _on_our_gpus(arrival.outcomes)) and not _on_our_gpus(known.values()):
        progress.note(f"not alone on the GPU, points are flagged {FOREIGN_GPU}: {crowded}")
    ledger.withdraw(arrival.withdrawn)
    for point_id in arrival.withdrawn:
        known.pop(point_id, None)
    ledger.record(arrival.outcomes)
    if trouble := ledger.trouble():
        progress.note(trouble)
    for outcome in arrival.outcomes:
        known[outcome.point.point_id] = without_expert_load(outcome)  # megabytes each
        progress.advance(outcome)


def _on_our_gpus(outcomes: Iterable[Outcome]) -> str:
    """The others that the first flagged measurement names."""
    measured = (o for o in outcomes if isinstance(o, Measurement))
    return next((m.machine[FOREIGN_GPU] for m in measured if FOREIGN_GPU in m.flags), "")
