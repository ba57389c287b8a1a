"""Every outcome of a sweep, on this machine's disk before anything else is done with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesd_dist.records import Outcome
from moesd_dist.records.driver import Driver
from moesd_dist.records.serial import outcome_from_plain, to_plain
from moesd_dist.sweep.append_file import AppendFile, whole_lines

FORMAT = 1
_POINT_BYTES = 8192  # what the record of a point takes, until some have been written
_HEADROOM = 1.5
_RECKON_EVERY = 100  # records between two looks at whether the room reserved will do


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """The point's outcome no longer counts."""

    point_id: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """Something said about a point; words are numbered in the order in which they were said."""

    number: int
    said: Outcome | Withdrawal

    @property
    def point_id(self) -> str:
        return self.said.point_id if isinstance(self.said, Withdrawal) else self.said.point.point_id


class Journal:
    """One file a sweep; the last word about a point counts. Locked while it is open."""

    def __init__(self, folder: Path, driver: Driver | None = None) -> None:
        self._folder, self._driver = folder, driver or Driver()
        self._file: AppendFile | None = None
        self._entries: dict[int, Mapping[str, Any]] = {}  # words of earlier drivers, by number
        self._tracked: dict[int, str] = {}
        self._next = self._left = self._records = self._bytes = 0

    def open(self, sweep_id: str, name: str, points: int) -> None:
        """ValueError if another driver has it open, or if there is no room for `points` records."""
        self._file = AppendFile(self._folder / f"{sweep_id}.jsonl", self._driver)
        for line in self._file.lines:
            self._read(json.loads(line))
        if not self._file.lines:
            self._say({"kind": "header", "format": FORMAT, "sweep_id": sweep_id, "name": name})
        self._file.lines = []
        self._left = max(points - len(self._last()), 1)
        self._reserve()

    @classmethod
    def peek(cls, folder: Path, sweep_id: str) -> Journal:
        """What it says now, without its lock, for a reader who writes nothing."""
        journal = cls(folder)
        for line in whole_lines(folder / f"{sweep_id}.jsonl"):
            journal._read(json.loads(line))
        return journal

    def outcomes(self) -> dict[str, Outcome]:
        """What counted, by point id, when the journal was opened."""
        return {k: outcome_from_plain(entry["outcome"]) for k, entry in self._last().items()}

    def withdrawn(self) -> set[str]:
        """Points whose last word was that what had been measured does not count."""
        told = {entry["id"] for entry in self._entries.values()}
        return told - self._last().keys()

    def untracked(self, run_id: str) -> list[Word]:
        """Words of earlier drivers that may not have reached the tracker's sweep of this id."""
        left = (n for n in sorted(self._entries) if self._tracked.get(n) != run_id)
        return [Word(number=n, said=_said(self._entries[n])) for n in left]

    def record(self, outcomes: Sequence[Outcome]) -> list[Word]:
        """Durable when it returns."""
        words = self._numbered(outcomes)
        self._bytes += self._say(*map(_entry, words))
        before, self._records = self._records, self._records + len(words)
        self._left -= len(words)
        if before // _RECKON_EVERY != self._records // _RECKON_EVERY:
            self._reserve(first=False)
        return words

    def withdraw(self, reasons: Mapping[str, str]) -> list[Word]:
        """Durable when it returns."""
        words = self._numbered([Withdrawal(point_id=k, why=why) for k, why in reasons.items()])
        self._say(*map(_entry, words))
        self._left += len(words)
        return words

    def mark_tracked(self, words: Sequence[Word], run_id: str) -> None:
        """They have reached the tracker; a mark that is lost costs a look into it, nothing else."""
        numbers = [word.number for word in words]
        self._say({"kind": "tracked", "words": numbers, "run": run_id}, durable=False)

    def note(self, **values: Any) -> None:
        """Anything plain that is worth keeping: attempts, sentinels, what a person was told."""
        self._say({"kind": "note", **values}, durable=False)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._entries, self._tracked = None, {}, {}

    @property
    def path(self) -> Path:
        return self._open_file.path

    @property
    def damaged(self) -> int:
        """Lines that could not be read because they are not what was written."""
        return self._open_file.damaged

    @property
    def previous(self) -> Driver | None:
        """The driver that had the journal open before; its lock is gone, so it has ended."""
        return self._open_file.previous

    @property
    def _open_file(self) -> AppendFile:
        if self._file is None:
            raise RuntimeError("a journal is opened before it is used; call open() first")
        return self._file

    def _numbered(self, said: Sequence[Outcome | Withdrawal]) -> list[Word]:
        first, self._next = self._next, self._next + len(said)
        return [Word(number=first + place, said=what) for place, what in enumerate(said)]

    def _last(self) -> dict[str, Mapping[str, Any]]:
        last = {entry["id"]: entry for _, entry in sorted(self._entries.items())}
        return {k: entry for k, entry in last.items() if entry["kind"] == "outcome"}

    def _read(self, entry: Mapping[str, Any]) -> None:
        match entry["kind"]:
            case "outcome" | "withdrawn":
                self._entries[entry["n"]] = entry
                self._next = max(self._next, entry["n"] + 1)
            case "tracked":
                self._tracked |= dict.fromkeys(entry["words"], entry["run"])
            case "header" if entry["format"] > FORMAT:
                raise ValueError(
                    f"a journal of format {FORMAT} is read; {self.path} is of {entry['format']}, "
                    "written by a later version: continue with that one"
                )

    def _say(self, *entries: Mapping[str, Any], durable: bool = True) -> int:
        """How many bytes; ValueError if the disk takes no more."""
        lines = [json.dumps(entry, separators=(",", ":")) for entry in entries]
        if not lines:
            return 0
        try:
            self._open_file.append(lines, durable=durable)
        except OSError as error:
            raise ValueError(
                f"the journal takes what is measured; {self.path} does not ({error.strerror}); "
                "make room: the same command then measures what is missing"
            ) from error
        return sum(map(len, lines))

    def _reserve(self, *, first: bool = True) -> None:
        """For all that is to come, going by the records so far; later on, as far as it goes."""
        each = self._bytes / self._records * _HEADROOM if self._records else _POINT_BYTES
        try:
            self._open_file.reserve(int(max(self._left, 1) * each))
        except OSError as error:
            if first:
                raise ValueError(
                    f"the journal needs {self._left * each / 2**20:.0f} MiB for {self._left} "
                    f"points; {self.path} cannot have them ({error.strerror}); make room, or "
                    "choose another folder with tracking.journal=PATH"
                ) from error


def _entry(word: Word) -> dict[str, Any]:
    said = word.said
    if isinstance(said, Withdrawal):
        return {"kind": "withdrawn", "n": word.number, "id": said.point_id, "why": said.why}
    point_id = said.point.point_id
    return {"kind": "outcome", "n": word.number, "id": point_id, "outcome": to_plain(said)}


def _said(entry: Mapping[str, Any]) -> Outcome | Withdrawal:
    if entry["kind"] == "withdrawn":
        return Withdrawal(point_id=entry["id"], why=entry["why"])
    return outcome_from_plain(entry["outcome"])
