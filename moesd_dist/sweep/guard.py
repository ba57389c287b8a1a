"""When a sentinel is due on an engine, and what its answer means for the points before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from moesd_dist.records import Measurement, Outcome
from moesd_dist.sweep.arrival import Arrival
from moesd_dist.sweep.grouping import EngineKey, Group, groups
from moesd_dist.sweep.sentinel import as_group
from moesd_dist.sweep.watches import Watches

_WATCHED_FROM = 10  # points of an engine key: fewer are over before anything drifts


class Guard:
    """Asks for sentinels of engine keys with many points; `place` is a node's name."""

    def __init__(self, watches: Watches) -> None:
        self._watches = watches
        self._sentinels: dict[EngineKey, Group] = {}

    def choose(self, todo: Iterable[tuple[EngineKey, Group]]) -> None:
        """Once for every round of a sweep; a key keeps the sentinel that it has."""
        by_key: dict[EngineKey, list[Group]] = {}
        for key, group in todo:
            by_key.setdefault(key, []).append(group)
        for key, own in by_key.items():
            enough = sum(len(group.wanted) for group in own) >= _WATCHED_FROM
            point = self._watches.sentinel(key, own) if enough else None
            if point is not None:
                self._sentinels[key] = as_group(point)

    def opening(self, key: EngineKey) -> Group | None:
        """What an engine measures first."""
        return self._sentinels.get(key)

    def due(self, key: EngineKey, place: str) -> Group | None:
        """After so many points."""
        return self._sentinels.get(key) if self._watches.of(key, place).due else None

    def closing(self, key: EngineKey, place: str) -> Group | None:
        """Before an engine rests for good, so that its last points are judged too."""
        return self._sentinels.get(key) if self._watches.of(key, place).unjudged else None

    def saw(self, key: EngineKey, place: str, outcomes: Sequence[Outcome]) -> None:
        self._watches.of(key, place).add(outcomes)

    def judged(
        self, key: EngineKey, place: str, found: Outcome | None
    ) -> tuple[Arrival, list[Group]]:
        """What becomes of earlier points, and the groups that have to be measured again.

        A sentinel that cannot be measured says nothing and is not asked for again.
        """
        if not isinstance(found, Measurement):
            self._sentinels.pop(key, None)
            return Arrival(), []
        watch = self._watches.of(key, place)
        verdict = watch.judge(found)
        notes = tuple(text for text in (verdict.text, *self._watches.uneven()) if text)
        arrival = Arrival(
            outcomes=verdict.kept,
            withdrawn=verdict.withdrawn,
            notes=notes,
            sentinels={place: watch.seconds},
        )
        return arrival, groups([m.point for m in verdict.again], finished=())
