"""Shared memory that killed processes leave behind in /dev/shm: what they had open, and its removal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil

FOLDER = "/dev/shm"


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of shared memory; a name that was given again to another file is another segment."""

    path: str
    inode: int


class Segments:
    """Remembers what a tree of processes had open, since a dead process can no longer be asked."""

    def __init__(self) -> None:
        self._before = _present()  # another's, whoever opens it later
        self._seen: set[Segment] = set()

    def note(self, pids: Iterable[int]) -> None:
        for pid in pids:
            self._seen |= _open_in(pid) - self._before

    def remove(self, *, dying: int) -> None:
        """Removes what no living process has open; `dying` does not count as one."""
        left = self._seen & _present()
        for pid in psutil.pids() if left else ():
            if pid != dying:
                left -= _open_in(pid)
        for segment in left:
            with suppress(OSError):
                os.unlink(segment.path)
        self._seen -= left


def _present() -> set[Segment]:
    with suppress(OSError), os.scandir(FOLDER) as entries:
        return {Segment(entry.path, entry.inode()) for entry in entries}
    return set()


def _open_in(pid: int) -> set[Segment]:
    """Nothing if the process has ended or belongs to another user."""
    found: set[Segment] = set()
    # A process may end between two lines (ESRCH on reading, ENOENT on opening).
    with suppress(OSError):
        found |= {s for s in _mapped(pid) if os.path.dirname(s.path) == FOLDER}
    with suppress(OSError):
        found |= {s for s in _descriptors(pid) if os.path.dirname(s.path) == FOLDER}
    return found


def _mapped(pid: int) -> Iterator[Segment]:
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            if FOLDER in line:  # address, rights, offset, device, inode, path
                *_, inode, path = line.rstrip("\n").split(None, 5)
                yield Segment(path, int(inode))


def _descriptors(pid: int) -> Iterator[Segment]:
    folder = f"/proc/{pid}/fd"
    for number in os.listdir(folder):
        with suppress(OSError):
            path = os.readlink(f"{folder}/{number}")
            if path.startswith(FOLDER):
                yield Segment(path, os.stat(f"{folder}/{number}").st_ino)
