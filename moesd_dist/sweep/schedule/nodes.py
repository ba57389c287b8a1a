"""What each kind of engine can do with the nodes of a cluster, worked out once for many decisions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from moesd_dist.sweep.grouping import EngineKey
from moesd_dist.sweep.schedule.needs import Needs, Room
from moesd_dist.sweep.schedule.placement import capacity, share, shunned_nodes

Share = tuple[int, int]
"""CPUs and GPUs."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kind:
    """Engines of equal needs: how much of which nodes they take."""

    needs: Needs
    shares: tuple[Share, ...]  # of each node
    where: frozenset[int]  # places of the nodes that could hold a share
    share: Share  # of the smallest of them
    all: Share  # what they have together
    slots: int  # shares that fit at once
    engines: int  # engines that fit at once

    @classmethod
    def of(cls, needs: Needs, rooms: Sequence[Room]) -> Kind:
        slots = [capacity(needs, room) for room in rooms]
        where = frozenset(place for place, count in enumerate(slots) if count)
        shares = tuple(share(needs, room) for room in rooms)
        engines = sum(slots) // needs.nodes
        while sum(min(count, engines) for count in slots) < engines * needs.nodes:
            engines -= 1
        return cls(
            needs=needs,
            shares=shares,
            where=where,
            share=min((shares[place] for place in where), default=(0, 0)),
            all=(sum(rooms[p].cpus for p in where), sum(rooms[p].gpus for p in where)),
            slots=sum(slots),
            engines=engines,
        )

    def takes(self, small: Kind) -> bool:
        """Whether each of these takes at least one of the other's places."""
        return self.where <= small.where and self.times(small) > 0

    def times(self, small: Kind) -> int:
        """How many shares of a smaller kind would fit into one of these."""
        fits = [a // b for a, b in zip(self.share, small.share, strict=True) if b]
        return min(fits, default=0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """An engine key and its kind. Compared as an object: keys are long, and decisions are many."""

    key: EngineKey
    kind: Kind


class Nodes:
    """The nodes as a whole, whoever uses them now; equal keys get the same answer object."""

    def __init__(self, rooms: Sequence[Room], needs: Callable[[EngineKey], Needs]) -> None:
        self.rooms, self._needs = tuple(rooms), needs
        self.places = {room.node_id: place for place, room in enumerate(rooms)}
        self._kinds: dict[Needs, Kind] = {}
        self._known: dict[EngineKey, Known] = {}
        self._seen: dict[int, tuple[EngineKey, Known]] = {}  # by id() of a key that is kept here

    def kind(self, needs: Needs) -> Kind:
        if needs not in self._kinds:
            self._kinds[needs] = Kind.of(needs, self.rooms)
        return self._kinds[needs]

    def known(self, key: EngineKey) -> Known:
        seen = self._seen.get(id(key))
        if seen is None:
            if key not in self._known:
                self._known[key] = Known(key=key, kind=self.kind(self._needs(key)))
            seen = self._seen[id(key)] = (key, self._known[key])
        return seen[1]

    def shunned(self, kind: Kind, avoid: Collection[str]) -> Collection[str]:
        """The nodes to avoid, or none if only they could hold such an engine."""
        return shunned_nodes(kind.needs, self.rooms, avoid) if avoid else avoid

    def still(self, rooms: Sequence[Room]) -> bool:
        return self.rooms == tuple(rooms)
