"""What earlier drivers said in a journal: an index of it, the words themselves stay on the disk."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from moesd_dist.records import Outcome
from moesd_dist.records.slim import without_expert_load
from moesd_dist.sweep.append_file import line_at
from moesd_dist.sweep.words import HEAVY_BYTES, OUTCOME, WITHDRAWN, Withdrawal, Word, said_in

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """Where what was said about which point."""

    point_id: str
    place: int
    size: int
    withdrawal: bool


class History:
    """The last word about a point counts. Outcomes come without expert loads."""

    def __init__(self, path: Path, lines: Iterable[tuple[int, str]]) -> None:
        """ValueError for a journal of a later version."""
        self._path = path
        self._entries: dict[int, _Entry] = {}  # by number
        self._tracked: dict[int, str] = {}
        self.next = 0  # number: no word had it, not even one whose line is damaged
        self.lines = self.outcome_bytes = 0
        for place, line in lines:
            self._read(place, line)

    @property
    def outcome_count(self) -> int:
        return sum(not entry.withdrawal for entry in self._entries.values())

    def outcomes(self) -> dict[str, Outcome]:
        """What counts, by point id."""
        return {k: self._outcome(n) for k, n in self._last().items()}

    def whole(self, point_ids: Collection[str]) -> dict[str, Outcome]:
        """What counts of these points, with everything that was written of them."""
        last = self._last()
        found = {k: self._said(last[k]) for k in point_ids if k in last}
        return {k: said for k, said in found.items() if not isinstance(said, Withdrawal)}

    def counted(self) -> int:
        """Points that have an outcome that counts."""
        return len(self._last())

    def withdrawn(self) -> set[str]:
        """Points whose last word was that what had been measured does not count."""
        return {entry.point_id for entry in self._entries.values()} - self._last().keys()

    def untracked(self, run_id: str) -> list[Word]:
        """Words that may not have reached the tracker's sweep of this id.

        Of each point from the first such word on: a later one may have been undone by it.
        """
        points: set[str] = set()
        left: list[int] = []
        for number, entry in self._in_order():
            if self._tracked.get(number) != run_id or entry.point_id in points:
                points.add(entry.point_id)
                left.append(number)
        return [self._word(number) for number in left]

    def words_of(self, point_ids: Collection[str]) -> list[Word]:
        """What makes a store say of these points what counts, if it has nothing or old things."""
        last: dict[str, list[int]] = {}
        for number, entry in self._in_order():
            if entry.point_id in point_ids:
                before = [] if entry.withdrawal else last.get(entry.point_id, [])[:1]
                kept = [n for n in before if self._entries[n].withdrawal]
                last[entry.point_id] = [*kept, number]
        return [self._word(n) for n in sorted(n for numbers in last.values() for n in numbers)]

    def superseded(self) -> dict[str, list[Outcome]]:
        """What had counted before it was withdrawn, by point id."""
        withdrawn = {e.point_id: n for n, e in self._in_order() if e.withdrawal}
        found: dict[str, list[Outcome]] = {}
        for number, entry in self._entries.items():
            if not entry.withdrawal and number < withdrawn.get(entry.point_id, 0):
                found.setdefault(entry.point_id, []).append(self._outcome(number))
        return found

    def _in_order(self) -> Iterator[tuple[int, _Entry]]:
        return ((number, self._entries[number]) for number in sorted(self._entries))

    def _last(self) -> dict[str, int]:
        """Numbers of the outcomes that count."""
        last = {entry.point_id: number for number, entry in self._in_order()}
        return {k: n for k, n in last.items() if not self._entries[n].withdrawal}

    def _word(self, number: int) -> Word:
        entry = self._entries[number]
        said = None if entry.size > HEAVY_BYTES else said_in(line_at(self._path, entry.place))
        return Word(number=number, point_id=entry.point_id, place=entry.place, said=said)

    def _outcome(self, number: int) -> Outcome:
        found = self._said(number)
        assert not isinstance(found, Withdrawal)  # those are told apart by their entry
        return without_expert_load(found)

    def _said(self, number: int) -> Outcome | Withdrawal:
        return said_in(line_at(self._path, self._entries[number].place))

    def _read(self, place: int, line: str) -> None:
        entry, self.lines = json.loads(line), self.lines + 1
        match entry["kind"]:
            case "outcome" | "withdrawn" as kind:
                self._entries[entry["n"]] = _Entry(
                    point_id=entry["id"],
                    place=place,
                    size=len(line),
                    withdrawal=kind == WITHDRAWN,
                )
                self.outcome_bytes += len(line) if kind == OUTCOME else 0
                self.next = max(self.next, entry["n"] + 1)
            case "tracked":
                self._tracked |= dict.fromkeys(entry["words"], entry["run"])
                self.next = max(self.next, 0, *(n + 1 for n in entry["words"]))
            case "header" if entry["format"] > FORMAT:
                raise ValueError(
                    f"a journal of format {FORMAT} is read; {self._path} is of {entry['format']}, "
                    "written by a later version: continue with that one"
                )
