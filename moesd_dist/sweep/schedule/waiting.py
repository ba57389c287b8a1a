"""The works that wait for an engine, the longest of each engine key first."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count

from moesd_dist.sweep.grouping import EngineKey
from moesd_dist.sweep.schedule.work import Work


@dataclass(slots=True)
class Line:
    """The works of one key. Shortest first, so that the longest is taken from the end; of equals the
    newest first."""

    key: EngineKey
    entries: list[tuple[float, int, Work]] = field(default_factory=list)
    seconds: float = 0.0
    wary: int = 0  # works that avoid some node

    def longest_first(self) -> Iterator[Work]:
        return (work for _, _, work in reversed(self.entries))


class Waiting:
    """By engine key, longest first and stable among equals."""

    def __init__(self, works: Iterable[Work] = ()) -> None:
        self._lines: dict[EngineKey, Line] = {}
        self._places: dict[int, tuple[float, int]] = {}  # of a work in its line, by its id()
        self._count = count()
        for work in works:
            self.push(work)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Work]:
        return (work for key in self._lines for work in self.longest_first(key))

    def push(self, work: Work) -> None:
        line = self._lines.get(work.key)
        if line is None:
            line = self._lines[work.key] = Line(work.key)
        place = (work.seconds, -next(self._count))
        insort(line.entries, (*place, work))
        line.seconds += work.seconds
        line.wary += bool(work.avoid)
        self._places[id(work)] = place

    def remove(self, work: Work) -> None:
        """KeyError if it does not wait."""
        place = self._places.pop(id(work))
        line = self._lines[work.key]
        del line.entries[bisect_left(line.entries, place, key=lambda entry: entry[:2])]
        line.seconds -= work.seconds
        line.wary -= bool(work.avoid)
        if not line.entries:
            del self._lines[work.key]

    def take(self, key: EngineKey) -> Work | None:
        """The longest of the key, which waits no more; None if none does."""
        for work in self.longest_first(key):
            self.remove(work)
            return work
        return None

    def taken(self, key: EngineKey) -> list[Work]:
        """All of the key, longest first, which wait no more."""
        works = list(self.longest_first(key))
        for work in works:
            self.remove(work)
        return works

    def keys(self) -> list[EngineKey]:
        """Those that something waits for, in the order in which they came to wait."""
        return list(self._lines)

    def lines(self) -> list[Line]:
        """One for each of the keys, in the same order."""
        return list(self._lines.values())

    def longest_first(self, key: EngineKey) -> Iterator[Work]:
        line = self._lines.get(key)
        return line.longest_first() if line else iter(())

    def count(self, key: EngineKey) -> int:
        line = self._lines.get(key)
        return len(line.entries) if line else 0
