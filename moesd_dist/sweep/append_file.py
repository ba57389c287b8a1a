"""A file that only grows: checksummed lines, safe on disk when `append` returns, one writer at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from moesd_dist.records.driver import Driver, driver_from

_STEP = 4 << 20  # bytes reserved at a time
_NO_RESERVING = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)  # a file system that cannot
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = "closed"  # behind its driver in the lock file, once it has ended in order
_RECENT_S = (
    90.0  # a driver elsewhere that wrote since may still run: some locks stay on one machine
)


class AppendFile:
    """Reads what is whole, cuts off a torn end, and goes on behind it.

    Space is reserved ahead, so that a disk that fills up later takes what is still to come; the
    reserved bytes read as NUL and are given back at `close`.
    """

    def __init__(self, path: Path, driver: Driver) -> None:
        """ValueError if another process writes it, or if nothing can be written there."""
        self.path = path
        self.previous: Driver | None = None  # who wrote it last, and lets it be written now
        self.damaged = 0  # lines that are not what was written
        self._turn = threading.Lock()
        self._fd = self._lock = -1
        try:
            self._open(driver)
        except OSError as error:
            raise ValueError(
                f"the journal's folder takes at least {_STEP >> 20} MiB; {path} does not "
                f"({error.strerror}); {way_out(error)}"
            ) from error

    def append(self, lines: Sequence[str], *, durable: bool = True) -> list[int]:
        """All of the lines at once, and where each begins; what is not `durable` may be lost with
        the machine's power."""
        framed = [_framed(line) for line in lines]
        data, places = b"".join(framed), []
        with self._turn:
            self._make_room(len(data))
            written = 0
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], self._end + written)
            if durable:
                os.fsync(self._fd)
            for line in framed:
                places.append(self._end)
                self._end += len(line)
        return places

    def reserve(self, ahead: int) -> None:
        """Room for `ahead` more bytes; OSError if the disk has not got it."""
        with self._turn:
            self._make_room(ahead)

    def lines(self) -> Iterator[tuple[int, str]]:
        """The whole ones, each with where it begins; the others are counted as damaged."""
        self.damaged = 0
        for place, text in _lines(self.path):
            if text is None:
                self.damaged += 1
            else:
                yield place, text

    def close(self) -> None:
        """Once more does no harm; a write that comes later gets an OSError."""
        with self._turn:
            fd, lock, self._fd, self._lock = self._fd, self._lock, -1, -1
            try:
                if fd >= 0:
                    os.ftruncate(fd, self._end)
                    os.fsync(fd)
                    os.pwrite(lock, f"{self._driver}\n{_CLOSED}\n".encode(), 0)
            finally:
                for each in (fd, lock):
                    if each >= 0:
                        os.close(each)

    def _open(self, driver: Driver) -> None:
        self._driver = driver
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            self._end = self._reserved = _end_of_lines(self.path)
            os.ftruncate(fd, self._end)
            self._fd = fd
            self.reserve(_STEP)
            _sync_folder(self.path.parent)
        except BaseException:
            with suppress(OSError):
                self.close()
            raise

    def _take_lock(self) -> None:
        """A file beside it, since it also says who holds the lock."""
        path = self.path.with_suffix(".lock")
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        told = _told(self._lock)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(_taken(path, driver_from(told[0]))) from error
        first, *rest = _told(self._lock)
        self.previous = driver_from(first)
        if self.previous and not self.previous.local and _CLOSED not in rest:
            self._check_silent(self.previous)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{self._driver}\n".encode(), 0)

    def _check_silent(self, other: Driver) -> None:
        """A lock in a folder that machines share may hold on one of them only."""
        silent_s = time.time() - self.path.stat().st_mtime if self.path.exists() else _RECENT_S
        if silent_s < _RECENT_S:
            raise ValueError(
                f"one driver at a time runs a sweep; process {other.pid} on {other.host} wrote to "
                f"{self.path} {max(silent_s, 0):.0f} s ago; wait for it, or end it and try again "
                f"after {_RECENT_S:.0f} s, or give this one another sweep.name"
            )

    def _make_room(self, ahead: int) -> None:
        missing = self._end + ahead - self._reserved
        if missing <= 0:
            return
        size = -(-missing // _STEP) * _STEP
        try:
            os.posix_fallocate(self._fd, self._reserved, size)
        except OSError as error:
            if error.errno not in _NO_RESERVING:
                raise
        self._reserved += size


def whole_lines(path: Path) -> Iterator[tuple[int, str]]:
    """As they are now, without the lock, for a reader who writes nothing; none without a file."""
    return ((place, text) for place, text in _lines(path) if text is not None)


def line_at(path: Path, place: int) -> str:
    """The line that begins there. ValueError if it is not what was written."""
    with path.open("rb") as file:
        file.seek(place)
        text = _unframed(file.readline().rstrip(b"\n"))
    if text is None:
        raise ValueError(f"a line of the journal is what was written; {path} at {place} is not")
    return text


def way_out(error: OSError) -> str:
    """What a person can do about it."""
    room = "make room, or " if error.errno in _NO_ROOM else ""
    return f"{room}choose another folder with tracking.journal=PATH"


def _lines(path: Path) -> Iterator[tuple[int, str | None]]:
    """Every line that has an end, None for one that is damaged; without holding them all."""
    if not path.exists():
        return
    place, end = 0, _end_of_lines(path)
    with path.open("rb") as file:
        while place < end:  # what is reserved behind may be as long as the sweep
            line = file.readline()
            yield place, _unframed(line[:-1])
            place += len(line)


def _end_of_lines(path: Path) -> int:
    """Behind the last whole line's end: what follows is torn or reserved."""
    piece = 1 << 20
    with path.open("rb") as file:
        start = file.seek(0, os.SEEK_END)
        while start > 0:
            start = max(0, start - piece)
            file.seek(start)
            if (found := file.read(piece).rfind(b"\n")) >= 0:
                return start + found + 1
    return 0


def _framed(text: str) -> bytes:
    data = text.encode()
    return b"%08x %b\n" % (zlib.crc32(data), data)


def _unframed(line: bytes) -> str | None:
    """None if the checksum does not fit."""
    checksum, _, data = line.partition(b" ")
    return data.decode() if checksum == b"%08x" % zlib.crc32(data) else None


def _told(lock: int) -> list[str]:
    """Who holds the lock or held it last, and perhaps that it was closed in order."""
    return os.pread(lock, 1000, 0).decode(errors="replace").split("\n")


def _taken(path: Path, holder: Driver | None) -> str:
    who = f"process {holder.pid} on {holder.host}" if holder else "another process"
    since = time.strftime("%H:%M:%S", time.localtime(path.stat().st_mtime))
    return (
        f"one driver at a time runs a sweep; {who} has been running this one since {since} "
        f"({path}); wait for it, end it, or give this one another sweep.name"
    )


def _sync_folder(folder: Path) -> None:
    """So that the file's name is as durable as what is in it."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
