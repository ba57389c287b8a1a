"""A virtual clock on which engines take just what is expected, told what to do by the policy."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from moesd_dist.sweep.grouping import EngineKey
from moesd_dist.sweep.schedule.needs import Needs, Room
from moesd_dist.sweep.schedule.policy import Policy
from moesd_dist.sweep.schedule.waiting import Waiting
from moesd_dist.sweep.schedule.work import Loaded, Start, Stop, Submit, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A work and when it ran."""

    work: Work
    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRun:
    """An engine from the start of its loading to the end of its last work, in the order of its works."""

    engine_id: int
    key: EngineKey
    needs: Needs
    nodes: tuple[str, ...]
    began_s: float
    start_s: float
    done: tuple[Done, ...]

    @property
    def ended_s(self) -> float:
        return self.done[-1].ended_s

    @property
    def busy_s(self) -> float:
        return self.start_s + sum(each.work.seconds for each in self.done)


@dataclass(slots=True, kw_only=True)
class _Actor:
    """An engine of the rehearsal."""

    key: EngineKey
    nodes: tuple[str, ...]
    began_s: float
    free_s: float
    done: list[Done] = field(default_factory=list)


class Stage:
    """Every room is empty at the start."""

    def __init__(
        self,
        rooms: Sequence[Room],
        needs: Callable[[EngineKey], Needs],
        start_s: Callable[[EngineKey], float],
        *,
        one_by_one: bool = False,
    ) -> None:
        self._rooms, self._needs, self._start_s = rooms, needs, start_s
        self._policy = Policy(needs, start_s, one_by_one=one_by_one)
        self._now = 0.0
        self._all: list[_Actor] = []
        self._loaded: dict[int, _Actor] = {}
        self._ends: list[tuple[float, int]] = []

    def play(self, works: Sequence[Work]) -> None:
        waiting = Waiting(works)
        while len(waiting):
            actions = self._policy.decide(waiting, self._seen(), self._rooms)
            for action in actions:
                if not isinstance(action, Stop):
                    waiting.remove(action.work)
            for action in actions:
                self._do(action)
            if not len(waiting):
                return
            self._wait()

    def runs(self) -> Iterator[EngineRun]:
        for engine_id, actor in enumerate(self._all):
            yield EngineRun(
                engine_id=engine_id,
                key=actor.key,
                needs=self._needs(actor.key),
                nodes=actor.nodes,
                began_s=actor.began_s,
                start_s=self._start_s(actor.key),
                done=tuple(actor.done),
            )

    def _seen(self) -> list[Loaded]:
        return [
            Loaded(
                engine_id=engine_id,
                key=actor.key,
                nodes=actor.nodes,
                busy=actor.free_s > self._now,
                free_in_s=max(0.0, actor.free_s - self._now),
            )
            for engine_id, actor in self._loaded.items()
        ]

    def _do(self, action: Start | Submit | Stop) -> None:
        match action:
            case Stop():
                del self._loaded[action.engine_id]
            case Start():
                ready_s = self._now + self._start_s(action.key)
                actor = _Actor(
                    key=action.key, nodes=action.nodes, began_s=self._now, free_s=ready_s
                )
                self._loaded[len(self._all)] = actor
                self._all.append(actor)
                self._run(len(self._all) - 1, action.work)
            case Submit():
                self._run(action.engine_id, action.work)

    def _run(self, engine_id: int, work: Work) -> None:
        actor = self._loaded[engine_id]
        began_s = max(self._now, actor.free_s)
        actor.free_s = began_s + work.seconds
        actor.done.append(Done(work=work, began_s=began_s, ended_s=actor.free_s))
        heapq.heappush(self._ends, (actor.free_s, engine_id))

    def _wait(self) -> None:
        """Until something ends, and all that ends with it."""
        if not self._ends:
            raise ValueError("no room for what still waits; call check_room first")
        self._now = self._ends[0][0]
        while self._ends and self._ends[0][0] <= self._now:
            heapq.heappop(self._ends)
