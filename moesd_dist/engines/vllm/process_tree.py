"""A process with everything it started: found again however it hides, stopped for good, tidied up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from moesd_dist.engines.vllm.shared_memory import Segments

TAG = "MOESD_ENGINE_TREE"  # environment variable that every process of a tree inherits
_KILL_S = 10.0  # a process that hangs in a driver outlives even SIGKILL; it is not waited for


class ProcessTree:
    """The root leads a session of its own and has `tag` in its environment.

    Workers are found as descendants of a living root, by the session once it has died, by the tag
    once they left the session too (setsid), and by memory if they then overwrote their environment
    as setproctitle does.
    """

    def __init__(self, root: int, tag: str, segments: Segments) -> None:
        self._root, self._tag, self._segments = psutil.Process(root), tag, segments
        self._seen: set[psutil.Process] = {self._root}

    @property
    def root_lives(self) -> bool:
        return _lives(self._root)

    def signal_root(self, number: signal.Signals) -> None:
        _signal(self._root, number)

    def note(self) -> None:
        """Remembers the members and their shared memory, while they can still be asked."""
        if self.root_lives:
            self._seen.update(_descendants(self._root))
        self._segments.note(process.pid for process in self._seen if _lives(process))

    def stop(self, grace_s: float) -> None:
        """Ends all members but the calling process, and removes the shared memory they leave."""
        self._members()  # adds those that only the tag gives away
        self.note()
        self._send(signal.SIGTERM, grace_s)
        self._send(signal.SIGKILL, _KILL_S)
        self._segments.remove(dying=self._root.pid)

    def _send(self, number: signal.Signals, patience_s: float) -> None:
        """Once to each member, to those that appear meanwhile too, until none is left."""
        told: set[psutil.Process] = set()

        def none_left() -> bool:
            members = {p for p in self._members() if p.pid != os.getpid()}
            for process in members - told:
                _signal(process, number)
            told.update(members)
            return not members

        wait_until(none_left, patience_s)

    def _members(self) -> set[psutil.Process]:
        found = _descendants(self._root) if self.root_lives else set()
        for pid in filter(self._is_marked, psutil.pids()):
            with suppress(psutil.Error):
                found.add(psutil.Process(pid))
        self._seen |= found
        return {process for process in self._seen if _lives(process)}

    def _is_marked(self, pid: int) -> bool:
        try:
            if os.getsid(pid) == self._root.pid:
                return True
            with open(f"/proc/{pid}/environ", "rb") as environment:
                return f"{TAG}={self._tag}".encode() in environment.read().split(b"\0")
        except OSError:  # it has ended, or is another user's
            return False


def wait_until(happened: Callable[[], bool], patience_s: float) -> bool:
    """Asks at least once; False if it did not happen in time."""
    deadline = time.monotonic() + patience_s
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.03)
    return True


def _lives(process: psutil.Process) -> bool:
    """A zombie does not: it waits for nothing but its parent."""
    with suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _descendants(process: psutil.Process) -> set[psutil.Process]:
    with suppress(psutil.Error):
        return set(process.children(recursive=True))
    return set()


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.Error):
        process.send_signal(number)  # psutil makes sure that the pid was not given again
