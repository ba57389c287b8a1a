"""A Python module run in a process of its own and called from here, so that it may crash alone."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import uuid
import weakref
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from moesd_dist.engines.vllm.child_log import ChildLog, last_line, telling_line
from moesd_dist.engines.vllm.failures import EngineDied as EngineDied
from moesd_dist.engines.vllm.failures import EngineRefused as EngineRefused
from moesd_dist.engines.vllm.failures import ending
from moesd_dist.engines.vllm.process_tree import TAG, ProcessTree, wait_until
from moesd_dist.engines.vllm.shared_memory import Segments

_POLL_S = 0.2  # how late a death is noticed; an answer wakes us at once
_WATCH_S = 1.0
_GRACE_S = 2.0  # between SIGTERM and SIGKILL
_REAP_S = 10.0
_DUMP_S = 0.3  # for the stacks of a child that hangs to reach its log


class ChildProcess:
    """Runs `python -m module`, which serves calls (see serving.py); one thread may call at a time.

    `environment` is added to this process's own. Dropped or forgotten, it is stopped all the same.
    """

    def __init__(self, module: str, environment: Mapping[str, str], log: Path) -> None:
        self._log, segments, tag = ChildLog(log), Segments(), uuid.uuid4().hex
        ours, theirs = socket.socketpair()
        extra = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **environment, TAG: tag}
        with theirs, log.open("ab") as output:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **extra},
                start_new_session=True,  # also keeps a Ctrl-C of ours from reaching it
                pass_fds=(theirs.fileno(),),
            )
        self._channel = Connection(ours.detach())
        self._tree = ProcessTree(self._popen.pid, tag, segments)
        self._stop = weakref.finalize(
            self, _stop, os.getpid(), self._popen, self._channel, self._tree
        )
        self._answered, self._ended = False, ""

    def call(self, name: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        """What the child's function of that name returns."""
        if self._ended:
            raise EngineDied(self._ended)
        request = pickle.dumps((name, arguments))
        self._log.begin_call()
        try:
            answer = self._exchange(name, request, timeout_s)
        except (EOFError, OSError):
            raise self._died(name) from None
        except BaseException:  # interrupted: the answer would be taken for that of the next call
            self._end(f"the engine's process was stopped, {name} having been interrupted")
            raise
        self._answered = True
        self._log.end_call()
        self._tree.note()
        kind, *rest = pickle.loads(answer)
        if kind == "error":
            raise EngineRefused(*rest)
        return rest[0]

    def abandon(self, what: str) -> EngineDied:
        """Stops everything; the error to raise says `what`, the log's telling line, and its place."""
        self._end(what)
        line = telling_line(self._log.of_call())
        reason = f"{what}: {line}" if line else what
        return EngineDied(f"{reason}; its log is {self._log.path}", self._log.tail())

    def close(self, timeout_s: float = 30.0) -> None:
        """Asks it to end, and makes sure."""
        if not self._ended:
            self._tree.note()
            with suppress(OSError):
                self._channel.send_bytes(pickle.dumps(("close", {})))
            wait_until(lambda: not self._tree.root_lives, timeout_s)
        self._end("the engine's process has been closed; make a new engine")

    def _exchange(self, name: str, request: bytes, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        watched = time.monotonic()
        self._channel.send_bytes(request)
        while not self._channel.poll(max(0.0, min(_POLL_S, deadline - time.monotonic()))):
            if not self._tree.root_lives and not self._channel.poll(0):
                raise EOFError
            if time.monotonic() >= deadline:
                raise self._hung(name, timeout_s)
            # Reading a memory map holds up its process: only while it loads, never while it measures.
            if not self._answered and time.monotonic() - watched > _WATCH_S:
                self._tree.note()
                watched = time.monotonic()
        return self._channel.recv_bytes()

    def _hung(self, name: str, timeout_s: float) -> EngineDied:
        self._tree.signal_root(signal.SIGUSR2)
        time.sleep(_DUMP_S)
        return self.abandon(
            f"the engine's process did not answer {name} within {timeout_s:g} s and was stopped"
        )

    def _died(self, name: str) -> EngineDied:
        # The channel closes a moment before the process ends.
        by_itself = wait_until(lambda: not self._tree.root_lives, _GRACE_S)
        self._stop()
        when = f"in {name}" if self._answered else "at start"
        how = ending(self._popen.returncode) if by_itself else "it closed its channel"
        log = self._log.of_call()
        last = "" if telling_line(log) else last_line(log)
        return self.abandon(
            f"the engine's process died {when} ({how})"
            + (f", its last words {last!r}" if last else "")
        )

    def _end(self, why: str) -> None:
        self._stop()  # the first time; afterwards it does nothing
        self._ended = self._ended or why


def _stop(
    owner: int, popen: subprocess.Popen[bytes], channel: Connection, tree: ProcessTree
) -> None:
    if os.getpid() != owner:  # a fork of ours drops its copy
        return
    tree.stop(_GRACE_S)
    channel.close()
    # Only now: until it is reaped, no other process can be given its pid. Its first thread may be a
    # zombie while others still end: only when all have, it is reaped and its memory is free.
    with suppress(subprocess.TimeoutExpired):
        popen.wait(_REAP_S)
