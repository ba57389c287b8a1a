"""The nodes as one decision sees them: what is free, what could be, and what is kept for whom."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from moesd_dist.sweep.schedule.nodes import Kind, Nodes, Share
from moesd_dist.sweep.schedule.work import Loaded, Work

Yields = Callable[[Loaded], bool]
"""Whether an engine has to make room."""

_SOON_S = 1e-9  # an engine that is late is still not there


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Where an engine can be, once the drained ones have ended and are stopped."""

    places: tuple[int, ...]
    nodes: tuple[str, ...]  # one entry a bundle
    drained: tuple[Loaded, ...]
    ready_s: float


class Board:
    """Changes with every decision that is written on it."""

    def __init__(self, nodes: Nodes, engines: Sequence[Loaded]) -> None:
        self._nodes = nodes
        self._free: list[Share] = [(room.cpus, room.gpus) for room in nodes.rooms]
        self._on: list[list[Loaded]] = [[] for _ in nodes.rooms]
        self._engines = {engine.engine_id: engine for engine in engines}
        for engine in sorted(engines, key=lambda engine: (engine.busy, engine.free_in_s)):
            kind = nodes.known(engine.key).kind
            for place in self._places(engine):
                self._on[place].append(engine)
                self._free[place] = _minus(self._free[place], kind.shares[place])

    def idle(self) -> list[Loaded]:
        """Those that are idle, have lost no node and have not been stopped."""
        return [e for e in self._engines.values() if not e.busy and self.alive(e)]

    def alive(self, engine: Loaded) -> bool:
        return all(node in self._nodes.places for node in engine.nodes)

    def allows(self, work: Work, engine: Loaded) -> bool:
        """An engine that sits only on nodes to avoid is for others, if there is another place."""
        if not work.avoid or not work.avoid.issuperset(engine.nodes):
            return True
        return not self._nodes.shunned(self._nodes.known(engine.key).kind, work.avoid)

    def spot(self, kind: Kind, avoid: Collection[str], yields: Yields) -> Spot | None:
        """Where such an engine can be soonest, if those that yield are not given more work.

        Of places as good, the fullest nodes, so that whole nodes stay whole for wide engines.
        """
        shunned, rooms = self._nodes.shunned(kind, avoid), self._nodes.rooms
        found = []
        for place in kind.where:
            drained = self._drained(kind, place, yields)
            if drained is not None and rooms[place].node_id not in shunned:
                ready_s = max((_free_in(engine) for engine in drained), default=0.0)
                cpus, gpus = self._free[place]
                found.append((ready_s, len(drained), gpus, cpus, place, drained))
        needs = kind.needs
        if len(found) < needs.nodes:
            return None
        chosen = sorted(found, key=lambda entry: entry[:5])[: needs.nodes]
        names = tuple(rooms[entry[4]].node_id for entry in chosen)
        return Spot(
            places=tuple(entry[4] for entry in chosen),
            nodes=names if needs.nodes > 1 else names * needs.ranks,
            drained=tuple({e.engine_id: e for entry in chosen for e in entry[5]}.values()),
            ready_s=max(entry[0] for entry in chosen),
        )

    def take(self, kind: Kind, spot: Spot) -> None:
        for place in spot.places:
            self._free[place] = _minus(self._free[place], kind.shares[place])

    def stop(self, engine: Loaded) -> None:
        """Its room is free for the rest of the decision."""
        del self._engines[engine.engine_id]
        kind = self._nodes.known(engine.key).kind
        for place in self._places(engine):
            self._on[place].remove(engine)
            self._free[place] = _minus(self._free[place], _minus((0, 0), kind.shares[place]))

    def hold(self, kind: Kind, spot: Spot) -> None:
        """What is free there now is for nobody else, and the engines there end for nobody else."""
        for place in spot.places:
            kept = kind.shares[place]
            for engine in spot.drained:
                if engine in self._on[place]:
                    kept = _minus(kept, self._nodes.known(engine.key).kind.shares[place])
            self._free[place] = _minus(self._free[place], (max(0, kept[0]), max(0, kept[1])))
        for engine in spot.drained:
            for place in self._places(engine):
                self._on[place].remove(engine)

    def _drained(self, kind: Kind, place: int, yields: Yields) -> list[Loaded] | None:
        """The engines of a node that have to go, or None if that is not enough."""
        (cpus, gpus), (free_cpus, free_gpus) = kind.shares[place], self._free[place]
        drained: list[Loaded] = []
        if cpus <= free_cpus and gpus <= free_gpus:
            return drained
        for engine in self._on[place]:
            if yields(engine):
                more_cpus, more_gpus = self._nodes.known(engine.key).kind.shares[place]
                free_cpus, free_gpus = free_cpus + more_cpus, free_gpus + more_gpus
                drained.append(engine)
                if cpus <= free_cpus and gpus <= free_gpus:
                    return drained
        return None

    def _places(self, engine: Loaded) -> list[int]:
        """Each once; a node that was lost has none."""
        places = self._nodes.places
        return [places[node] for node in dict.fromkeys(engine.nodes) if node in places]


def _free_in(engine: Loaded) -> float:
    return max(engine.free_in_s, _SOON_S) if engine.busy else 0.0


def _minus(one: Share, other: Share) -> Share:
    return one[0] - other[0], one[1] - other[1]
