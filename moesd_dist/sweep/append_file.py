"""A file that only grows: checksummed lines, safe on disk when `append` returns, one writer at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

from moesd_dist.records.driver import Driver, driver_from

_STEP = 4 << 20  # bytes reserved at a time
_NO_RESERVING = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)  # a file system that cannot


class AppendFile:
    """Reads what is whole, cuts off a torn end, and goes on behind it.

    Space is reserved ahead, so that a disk that fills up later takes what is still to come; the
    reserved bytes read as NUL and are given back at `close`.
    """

    def __init__(self, path: Path, driver: Driver) -> None:
        """ValueError if another process writes it, or if nothing can be written there."""
        self.path = path
        self.previous: Driver | None = None  # who wrote it last, and has certainly ended
        self.damaged = 0  # lines that are not what was written
        self._turn = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked(driver)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            self.lines = self._read()
            self._reserved = self._end
            self.reserve(_STEP)
        except OSError as error:
            raise ValueError(
                f"the journal's folder takes at least {_STEP >> 20} MiB; {path} does not "
                f"({error.strerror}); make room, or choose another folder with tracking.journal=PATH"
            ) from error
        _sync_folder(path.parent)

    def append(self, lines: Sequence[str], *, durable: bool = True) -> None:
        """All of the lines at once; what is not `durable` may be lost with the machine's power."""
        data = b"".join(map(_framed, lines))
        with self._turn:
            self._make_room(len(data))
            written = 0
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], self._end + written)
            if durable:
                os.fsync(self._fd)
            self._end += len(data)

    def reserve(self, ahead: int) -> None:
        """Room for `ahead` more bytes; OSError if the disk has not got it."""
        with self._turn:
            self._make_room(ahead)

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

    def close(self) -> None:
        os.ftruncate(self._fd, self._end)
        os.fsync(self._fd)
        os.close(self._fd)
        os.close(self._lock)

    def _locked(self, driver: Driver) -> int:
        """A file beside it, since it also says who holds the lock."""
        path = self.path.with_suffix(".lock")
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        told = os.read(lock, 1000).decode(errors="replace")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise ValueError(_taken(path, driver_from(told))) from error
        self.previous = driver_from(os.pread(lock, 1000, 0).decode(errors="replace"))
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{driver}\n".encode(), 0)
        return lock

    def _read(self) -> list[str]:
        """The whole lines; the file ends behind the last of them from now on."""
        data = _contents(self._fd)
        self._end = data.rfind(b"\n") + 1
        os.ftruncate(self._fd, self._end)
        framed = data[: self._end].split(b"\n")[:-1]
        found = [text for line in framed if (text := _unframed(line)) is not None]
        self.damaged = len(framed) - len(found)
        return found


def whole_lines(path: Path) -> list[str]:
    """As they are now, without the lock, for a reader who writes nothing; none without a file."""
    data = path.read_bytes() if path.exists() else b""
    framed = data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]
    return [text for line in framed if (text := _unframed(line)) is not None]


def _framed(text: str) -> bytes:
    data = text.encode()
    return b"%08x %b\n" % (zlib.crc32(data), data)


def _unframed(line: bytes) -> str | None:
    """None if the checksum does not fit."""
    checksum, _, data = line.partition(b" ")
    return data.decode() if checksum == b"%08x" % zlib.crc32(data) else None


def _contents(fd: int) -> bytes:
    pieces, place = [], 0
    while piece := os.pread(fd, 1 << 24, place):
        pieces.append(piece)
        place += len(piece)
    return b"".join(pieces)


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
