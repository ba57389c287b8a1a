"""Processes that write runs side by side, for when results come faster than one process can write."""

from __future__ import annotations

import atexit
import ctypes
import gc
import multiprocessing
import os
import signal
import sqlite3
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from moesd_dist.ports import TrackerUnavailable
from moesd_dist.records import Outcome
from moesd_dist.tracking import location
from moesd_dist.tracking.mlflow_runs import connect, quick_commits
from moesd_dist.tracking.outage import told
from moesd_dist.tracking.point_runs import Parent, was_finished, write

_CHUNK = 8  # runs a message
_COLLECT_FROM = 200_000  # objects; Python's own is 700
_DIED = "a process that writes to it has died"
_PR_SET_PDEATHSIG = 1
# The driver sees to what is on the wire. A terminal interrupts all of its processes, and
# `ray job stop` terminates all of a job's, those that have only just started too.
_NOT_FOR_WRITERS = {signal.SIGINT, signal.SIGTERM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`again` says that an earlier try may have gone through."""

    outcome: Outcome
    metrics: Mapping[str, float]
    again: bool = False


class Writers:
    """Started with the first job; a database in a file is switched to write-ahead logging."""

    def __init__(self, tracking_uri: str, parent: Parent, count: int = 0) -> None:
        self._uri, self._parent = tracking_uri, parent
        self._count = count or min(
            2, os.cpu_count() or 1
        )  # the database takes one writer at a time
        self._started: list[tuple[Any, Connection]] = []

    def write(self, jobs: Sequence[Job]) -> tuple[list[int], str]:
        """Places of the jobs that are written, in any order, and why the others are not.

        RuntimeError with the writer's own trace for anything but an outage.
        """
        if not self._started:
            self._start()
        waiting = [range(i, min(i + _CHUNK, len(jobs))) for i in range(0, len(jobs), _CHUNK)]
        flying: dict[Connection, range] = {}
        done: list[int] = []
        reason = ""
        idle = [connection for _, connection in self._started]
        while flying or (waiting and not reason):
            while idle and waiting and not reason:
                places, connection = waiting.pop(0), idle.pop()
                try:
                    connection.send([jobs[place] for place in places])
                except OSError:  # it died while it had nothing to do
                    reason = _DIED
                else:
                    flying[connection] = places
            for connection in [c for c in flying if c in wait(list(flying))]:
                places = flying.pop(connection)
                count, trouble = _answer(connection)
                done += places[:count]
                reason = reason or trouble
                idle.append(connection)
        return done, reason

    def close(self) -> None:
        atexit.unregister(self.close)
        for process, connection in self._started:
            connection.close()
            process.join(timeout=10)
            process.kill()
        if self._started and self._uri.startswith("sqlite:"):
            with suppress(sqlite3.Error), closing(self._database()) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                database.execute("PRAGMA journal_mode=DELETE")
        self._started = []

    def _start(self) -> None:
        if self._uri.startswith("sqlite:"):
            with suppress(sqlite3.Error), closing(self._database()) as database:
                database.execute("PRAGMA journal_mode=WAL")  # fewer waits for the disk
        atexit.register(self.close)  # Python would end them with SIGTERM, and wait
        fresh = multiprocessing.get_context("spawn")  # a fork would copy Ray's threads and locks
        for _ in range(self._count):
            ours, theirs = fresh.Pipe()
            process = fresh.Process(
                target=_serve, args=(theirs, self._uri, self._parent), daemon=True
            )
            kept = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_WRITERS)  # what it inherits
            process.start()
            signal.pthread_sigmask(signal.SIG_SETMASK, kept)
            theirs.close()
            self._started.append((process, ours))

    def _database(self) -> sqlite3.Connection:
        return sqlite3.connect(location.sqlite_path(self._uri), timeout=5)


def _answer(connection: Connection) -> tuple[int, str]:
    """How many of the chunk were written, and why the next one was not."""
    try:
        count, trouble, trace = connection.recv()
    except (EOFError, OSError):
        return 0, _DIED
    if trace:
        raise RuntimeError(f"writing a run broke:\n{trace}")
    return count, trouble


def _serve(connection: Connection, tracking_uri: str, parent: Parent) -> None:
    _end_with_the_driver()
    quick_commits()
    gc.set_threshold(_COLLECT_FROM)  # collecting young objects took a sixth of a run's time
    client = None
    while True:
        try:
            jobs = connection.recv()
        except (EOFError, OSError):
            return
        count, trouble, trace = 0, "", ""
        try:
            client = client or connect(tracking_uri)
            for job in jobs:
                with told():
                    if not (job.again and was_finished(client, parent, job.outcome.point.point_id)):
                        write(client, parent, job.outcome, job.metrics)
                count += 1
        except TrackerUnavailable as error:
            trouble = str(error)
        except Exception:
            trace = traceback.format_exc()
        connection.send((count, trouble, trace))


def _end_with_the_driver() -> None:
    """At once, however it ends: the next driver must not meet a write that is still under way."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
