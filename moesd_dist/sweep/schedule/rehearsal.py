"""The whole sweep on a virtual clock, decided by the policy of the real one: nothing is spent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from moesd_dist.sweep.grouping import EngineKey
from moesd_dist.sweep.schedule.bounds import lower_bound_s
from moesd_dist.sweep.schedule.needs import Needs, Room
from moesd_dist.sweep.schedule.stage import Done, EngineRun, Stage
from moesd_dist.sweep.schedule.work import Work

__all__ = ["Done", "EngineRun", "Rehearsal", "Within", "rehearse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """What a budget buys, in the order in which it would be finished."""

    works: tuple[Work, ...]
    points: int
    ended_s: float
    spent_s: float  # GPU-seconds; node-seconds where no engine takes a GPU


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What would run where and when."""

    engines: tuple[EngineRun, ...]
    lower_bound_s: float  # no schedule whatsoever is shorter
    gpus: int = 0  # of the whole cluster

    @property
    def makespan_s(self) -> float:
        return max((engine.ended_s for engine in self.engines), default=0.0)

    @property
    def gpu_s(self) -> float:
        """GPU-seconds in which engines load or measure."""
        return sum(engine.busy_s * engine.needs.all_gpus for engine in self.engines)

    @property
    def node_s(self) -> float:
        """Node-seconds of the engines that take no GPU."""
        cpu_engines = [engine for engine in self.engines if not engine.needs.all_gpus]
        return sum(engine.busy_s * engine.needs.nodes for engine in cpu_engines)

    @property
    def starts(self) -> Mapping[EngineKey, int]:
        return Counter(engine.key for engine in self.engines)

    @cached_property
    def finished(self) -> tuple[Done, ...]:
        """In the order in which they end."""
        done = [each for engine in self.engines for each in engine.done]
        return tuple(sorted(done, key=lambda each: each.ended_s))

    @property
    def critical_path(self) -> tuple[EngineRun, ...]:
        """The engine that ends last, after the one whose room it waited for, and so on."""
        path = [max(self.engines, key=lambda e: e.ended_s)] if self.engines else []
        while path and (before := self._before(path[0])):
            path.insert(0, before)
        return tuple(path)

    def within(self, budget_gpu_hours: float) -> Within:
        """Hours of GPUs from the start of an engine's loading to its end; of nodes on a CPU cluster."""
        spent_s = 0.0
        kept: list[Done] = []
        for each, spent_then in zip(self.finished, self._spent_s(), strict=True):
            if spent_then > budget_gpu_hours * 3600:
                break
            spent_s = spent_then
            kept.append(each)
        return Within(
            works=tuple(each.work for each in kept),
            points=sum(len(each.work.group.wanted) for each in kept),
            ended_s=kept[-1].ended_s if kept else 0.0,
            spent_s=spent_s,
        )

    def _before(self, run: EngineRun) -> EngineRun | None:
        nodes = set(run.nodes)
        earlier = [e for e in self.engines if nodes & set(e.nodes) and e.ended_s <= run.began_s]
        return max(earlier, key=lambda e: e.ended_s, default=None) if run.began_s > 0 else None

    def _spent_s(self) -> Iterator[float]:
        """By the end of each finished work."""
        gpus = any(engine.needs.all_gpus for engine in self.engines)
        costs = [(e, e.needs.all_gpus if gpus else e.needs.nodes) for e in self.engines]
        events = [(e.began_s, cost) for e, cost in costs] + [
            (e.ended_s, -cost) for e, cost in costs
        ]
        events.sort(key=lambda event: event[0])
        spent, rate, now, place = 0.0, 0, 0.0, 0
        for each in self.finished:
            while place < len(events) and events[place][0] <= each.ended_s:
                at, change = events[place]
                spent, rate, now, place = spent + rate * (at - now), rate + change, at, place + 1
            spent, now = spent + rate * (each.ended_s - now), each.ended_s
            yield spent


def rehearse(
    works: Sequence[Work],
    rooms: Sequence[Room],
    needs: Callable[[EngineKey], Needs],
    start_s: Callable[[EngineKey], float],
    *,
    one_by_one: bool = False,
) -> Rehearsal:
    """Every room is empty at the start, and everything takes just what is expected."""
    stage = Stage(rooms, needs, start_s, one_by_one=one_by_one)
    stage.play(works)
    return Rehearsal(
        engines=tuple(stage.runs()),
        lower_bound_s=lower_bound_s(works, rooms, needs, start_s),
        gpus=sum(room.gpus for room in rooms),
    )
