"""What runs where next: decided from what waits, what is loaded and what the nodes have."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence

from moesd_dist.sweep.grouping import EngineKey
from moesd_dist.sweep.schedule.asks import Ask, ask_for, loads_of
from moesd_dist.sweep.schedule.board import Board, Spot, Yields
from moesd_dist.sweep.schedule.horizon import horizon
from moesd_dist.sweep.schedule.needs import Needs, Room
from moesd_dist.sweep.schedule.nodes import Kind, Known, Nodes
from moesd_dist.sweep.schedule.waiting import Waiting
from moesd_dist.sweep.schedule.work import Action, Loaded, Start, Stop, Submit, Work

__all__ = ["Policy", "Waiting"]


class Policy:
    """Decides from its arguments alone: equal ones give equal actions.

    What a key needs may not change; what a start is expected to take may.
    """

    def __init__(
        self,
        needs: Callable[[EngineKey], Needs],
        start_s: Callable[[EngineKey], float],
        *,
        one_by_one: bool = False,
    ) -> None:
        """`one_by_one`: never two engines at once, for nodes that share the cores of one machine."""
        self._needs, self._start_s, self._one_by_one = needs, start_s, one_by_one
        self._nodes = Nodes((), needs)  # what was worked out for the last decision

    def decide(
        self, waiting: Waiting, engines: Sequence[Loaded], rooms: Sequence[Room]
    ) -> list[Action]:
        """What to do now, in this order; to be asked again whenever something has ended or waits anew.

        `waiting` stays as it is: the caller removes the works of *all* actions before it takes
        others out. An engine that is stopped may still be closing when the next one is started in
        its room. Every key has to pass `check_room`; then, if no engine is busy, something is done.
        """
        if not len(waiting):
            return []
        if not self._nodes.still(rooms):
            self._nodes = Nodes(rooms, self._needs)
        actions = _Decision(self._nodes, self._start_s, waiting, engines).actions()
        return _one_by_one(actions, engines) if self._one_by_one else actions

    def unused(self, waiting: Waiting, engines: Sequence[Loaded]) -> list[Stop]:
        """Stops all idle engines that nothing waits for."""
        done = [e for e in engines if not e.busy and not waiting.count(e.key)]
        return [Stop(engine_id=engine.engine_id) for engine in done]


class _Decision:
    """The scratch paper of one decision."""

    def __init__(
        self,
        nodes: Nodes,
        start_s: Callable[[EngineKey], float],
        waiting: Waiting,
        engines: Sequence[Loaded],
    ) -> None:
        self._nodes, self._engines = nodes, engines
        self._board = Board(nodes, engines)
        self._given: set[int] = set()  # works, by id()
        self._actions: list[Action] = []
        self._full: set[tuple[Kind, bool]] = set()  # for which there is no room any more
        self._held: dict[int, float] = {}  # engines that get no work that ends later
        lines = {nodes.known(line.key): line for line in waiting.lines()}
        loads = loads_of(lines, {known: start_s(known.key) for known in lines})
        own: dict[Known, list[Loaded]] = {known: [] for known in lines}
        for engine in engines:
            if self._board.alive(engine):
                own.get(nodes.known(engine.key), []).append(engine)
        left_s = horizon(loads, engines, nodes)
        self._asks = {k: ask_for(k, lines[k], loads[k], own[k], left_s) for k in lines}

    def actions(self) -> list[Action]:
        ranked = sorted(self._asks.values(), key=lambda ask: ask.rank, reverse=True)
        for ask in ranked:
            if ask.line.wary and not ask.short and self._orphans(ask):
                ask.short = 1
            self._provide(ask)
        for engine in self._board.idle():
            self._feed(engine)
        self._spread()
        if not self._actions and not any(engine.busy for engine in self._engines):
            self._force(ranked)
        return self._actions

    # -- engines --------------------------------------------------------------------------------

    def _provide(self, ask: Ask) -> None:
        """Starts what is short; else keeps the room that is free first, until there is enough of it."""
        kind = ask.known.kind
        while ask.short > 0 and (kind, ask.critical) not in self._full:
            work = self._next(ask)
            if work is None:
                return
            spot = self._board.spot(kind, work.avoid, self._outranked(ask))
            if spot is None:
                if not work.avoid:
                    self._full.add((kind, ask.critical))
                return
            if spot.ready_s > 0:
                self._hold(ask, spot)
            else:
                self._load(ask, work, spot)
            ask.short -= 1

    def _outranked(self, ask: Ask) -> Yields:
        """Engines that nothing waits for, narrower ones, and those that are more than it takes."""
        width = ask.known.kind.needs.all_gpus
        # Where there is one place, its order makes no difference, and a second start costs.
        urgent = ask.critical and ask.known.kind.engines > 1

        def yields(engine: Loaded) -> bool:
            other = self._asks.get(self._nodes.known(engine.key))
            if other is None:
                return True
            if other is ask or (other.critical and not ask.critical):
                return False
            own = other.known.kind.needs.all_gpus
            more_urgent = width == own and urgent and not other.critical
            return width > own or other.spare > 0 or more_urgent

        return yields

    def _load(self, ask: Ask, work: Work, spot: Spot) -> None:
        for engine in spot.drained:
            self._actions.append(Stop(engine_id=engine.engine_id))
            self._board.stop(engine)
            self._lend(engine)
        self._board.take(ask.known.kind, spot)
        self._actions.append(Start(key=ask.known.key, nodes=spot.nodes, work=work))
        self._given.add(id(work))
        ask.started += 1

    def _hold(self, ask: Ask, spot: Spot) -> None:
        for engine in spot.drained:
            self._held[engine.engine_id] = spot.ready_s
            self._lend(engine)
        self._board.hold(ask.known.kind, spot)

    def _lend(self, engine: Loaded) -> None:
        if ask := self._asks.get(self._nodes.known(engine.key)):
            ask.spare -= 1

    def _spread(self) -> None:
        """Further engines where they pay, in room that nobody else can use."""
        asks = [ask for ask in self._asks.values() if ask.engines or ask.started]
        longest = [(-ask.left_s, place) for place, ask in enumerate(asks)]
        heapq.heapify(longest)
        full: set[Kind] = set()
        while longest:
            left_s, place = heapq.heappop(longest)
            ask = asks[place]
            kind, pays = ask.known.kind, -left_s > ask.load.start_s
            work = self._next(ask) if pays and kind not in full else None
            if work is None:
                continue
            if spot := self._board.spot(kind, work.avoid, self._exhausted):
                self._load(ask, work, spot)
                heapq.heappush(longest, (-ask.left_s, place))
            elif not work.avoid:
                full.add(kind)

    def _exhausted(self, engine: Loaded) -> bool:
        return not engine.busy and self._nodes.known(engine.key) not in self._asks

    def _force(self, ranked: Sequence[Ask]) -> None:
        """All engines are idle and none may have what waits: whatever can be has its place."""
        for ask in ranked:
            work = self._next(ask)
            spot = self._board.spot(ask.known.kind, work.avoid, _any) if work else None
            if work and spot:
                self._load(ask, work, spot)
                return

    # -- works ----------------------------------------------------------------------------------

    def _feed(self, engine: Loaded) -> None:
        """The longest that the engine may have and, if its room is wanted, can end before then."""
        ask = self._asks.get(self._nodes.known(engine.key))
        until = self._held.get(engine.engine_id, math.inf)
        for work in ask.line.longest_first() if ask else ():
            if id(work) in self._given or work.seconds > until:
                continue
            if self._board.allows(work, engine):
                self._actions.append(Submit(engine_id=engine.engine_id, work=work))
                self._given.add(id(work))
                return

    def _next(self, ask: Ask) -> Work | None:
        """The work that another engine of the key would begin with."""
        works = (work for work in ask.line.longest_first() if id(work) not in self._given)
        if not ask.line.wary:
            return next(works, None)
        orphans = {id(work) for work in self._orphans(ask)}
        return min(works, key=lambda work: id(work) not in orphans, default=None)

    def _orphans(self, ask: Ask) -> list[Work]:
        """Works that none of the key's engines may have."""
        works = ask.line.longest_first()
        return [w for w in works if not any(self._board.allows(w, e) for e in ask.engines)]


def _one_by_one(actions: Sequence[Action], engines: Sequence[Loaded]) -> list[Action]:
    """The first start, in place of all engines that are loaded; it waits until none has work."""
    starts = [a for a in actions if isinstance(a, Start)]
    submits: list[Action] = [a for a in actions if isinstance(a, Submit)]
    if submits or not starts or any(engine.busy for engine in engines):
        return submits
    return [*(Stop(engine_id=engine.engine_id) for engine in engines), starts[0]]


def _any(_engine: Loaded) -> bool:
    return True
