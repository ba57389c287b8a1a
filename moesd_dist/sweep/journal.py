"""Every outcome of a sweep, on this machine's disk before anything else is done with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moesd_dist.records import Outcome
from moesd_dist.records.driver import Driver
from moesd_dist.sweep.append_file import AppendFile, line_at, way_out, whole_lines
from moesd_dist.sweep.history import FORMAT, History
from moesd_dist.sweep.words import Withdrawal, Word, as_line, line_of, said_in, word_at

_POINT_BYTES = 8192  # what the record of a point takes, until some have been written
_HEADROOM = 1.5
_ENOUGH = 10  # records, to go by their mean alone
_RECKON_EVERY = 100  # records between two looks at whether the room reserved will do


class Journal:
    """One file a sweep; the last word about a point counts. Locked while it is open."""

    def __init__(self, folder: Path, driver: Driver | None = None) -> None:
        self._folder, self._driver = folder, driver or Driver()
        self._file: AppendFile | None = None
        self._history: History | None = None
        self._next = self._left = self._records = self._bytes = self._reckon_at = 0
        self.whole = False  # there was one when it was opened, and no line of it is damaged

    def open(self, sweep_id: str, name: str, points: int) -> None:
        """ValueError if another driver has it open, or if there is no room for `points` records."""
        path = _path(self._folder, sweep_id)
        self._file = AppendFile(path, self._driver)
        try:
            history = self._history = History(path, self._file.lines())
            self.whole = bool(history.lines and not self._file.damaged)
            if not history.lines:
                header = {"kind": "header", "format": FORMAT, "sweep_id": sweep_id, "name": name}
                self._append([as_line(header)])
            self._next, self._left = history.next, max(points - history.counted(), 1)
            self._records, self._bytes = history.outcome_count, history.outcome_bytes
            self._reserve()
        except BaseException:
            self.close()
            raise

    @classmethod
    def peek(cls, folder: Path, sweep_id: str) -> History:
        """What it says now, without its lock, for a reader who writes nothing."""
        path = _path(folder, sweep_id)
        return History(path, whole_lines(path))

    @property
    def history(self) -> History:
        """What it said when it was opened."""
        if self._history is None:
            raise RuntimeError("a journal's history is read after open() and before forget()")
        return self._history

    def forget(self) -> None:
        """The history, once it has been asked."""
        self._history = None

    def said(self, word: Word) -> Outcome | Withdrawal:
        """Read from the disk if it is a heavy one."""
        return said_in(line_at(self.path, word.place)) if word.said is None else word.said

    def record(self, outcomes: Sequence[Outcome]) -> list[Word]:
        """Durable when it returns."""
        return self.say(outcomes)

    def withdraw(self, reasons: Mapping[str, str]) -> list[Word]:
        """Durable when it returns."""
        return self.say([Withdrawal(point_id=k, why=why) for k, why in reasons.items()])

    def say(self, said: Sequence[Outcome | Withdrawal]) -> list[Word]:
        """All of it in this order, durable when it returns."""
        numbers = range(self._next, self._next + len(said))
        self._next += len(said)
        lines = [line_of(number, what) for number, what in zip(numbers, said, strict=True)]
        places = self._append(lines)
        taken_back = sum(isinstance(what, Withdrawal) for what in said)
        self._records += len(said) - taken_back
        self._left += 2 * taken_back - len(said)
        self._bytes += sum(map(len, lines))
        if self._records >= self._reckon_at:
            self._reserve(first=False)
        return [word_at(*parts) for parts in zip(numbers, places, lines, said, strict=True)]

    def mark_tracked(self, words: Sequence[Word], run_id: str) -> None:
        """They have reached the tracker; a mark that is lost costs a look into it, nothing else."""
        numbers = [word.number for word in words]
        mark = {"kind": "tracked", "words": numbers, "run": run_id}
        self._append([as_line(mark)], durable=False)

    def note(self, **values: Any) -> None:
        """Anything plain that is worth keeping: attempts, sentinels, what a person was told."""
        self._append([as_line({"kind": "note", **values})], durable=False)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._history = None

    @property
    def path(self) -> Path:
        return self._open_file.path

    @property
    def damaged(self) -> int:
        """Lines that could not be read because they are not what was written."""
        return self._open_file.damaged

    @property
    def previous(self) -> Driver | None:
        """The driver that had the journal open before, as far as it is known."""
        return self._open_file.previous

    @property
    def _open_file(self) -> AppendFile:
        if self._file is None:
            raise RuntimeError("a journal is opened before it is used; call open() first")
        return self._file

    def _append(self, lines: Sequence[str], *, durable: bool = True) -> list[int]:
        """Where each begins; ValueError if the disk takes no more."""
        if not lines:
            return []
        try:
            return self._open_file.append(lines, durable=durable)
        except OSError as error:
            raise ValueError(
                f"the journal takes what is measured; {self.path} does not ({error.strerror}); "
                f"{way_out(error)}; the same command then measures what is missing"
            ) from error

    def _reserve(self, *, first: bool = True) -> None:
        """For all that is to come, going by the records so far; later on, as far as it goes."""
        each = self._bytes / self._records * _HEADROOM if self._records else 0.0
        if self._records < _ENOUGH:
            each = max(each, _POINT_BYTES)
        self._reckon_at = self._records + (1 if self._records < _ENOUGH else _RECKON_EVERY)
        try:
            self._open_file.reserve(int(max(self._left, 1) * each))
        except OSError as error:
            if first:
                raise ValueError(
                    f"the journal needs {self._left * each / 2**20:.0f} MiB for {self._left} "
                    f"points; {self.path} cannot have them ({error.strerror}); {way_out(error)}"
                ) from error


def _path(folder: Path, sweep_id: str) -> Path:
    return folder / f"{sweep_id}.jsonl"
