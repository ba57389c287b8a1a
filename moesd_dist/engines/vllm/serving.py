"""The child's side of a call: functions by name, answered one by one until the parent is gone."""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from moesd_dist.engines.vllm.process_tree import TAG, ProcessTree
from moesd_dist.engines.vllm.shared_memory import Segments

_GRACE_S = 1.0

Handlers = Mapping[str, Callable[..., Any]]


def open_channel() -> Connection:
    """The end of the channel whose number the parent gave as the first argument."""
    number = int(sys.argv[1])
    os.set_inheritable(number, False)  # a grandchild that held it would keep the channel open
    return Connection(number)


def serve(connection: Connection, handlers: Handlers) -> None:
    """Runs calls in this thread; returns after "close", and never if the parent dies.

    PR_SET_PDEATHSIG would not do: it fires when the parent's *thread* ends, and an actor's method
    may run on a thread that ends long before the actor.
    """
    faulthandler.register(signal.SIGUSR2, all_threads=True)  # the parent asks where we hang
    tree = ProcessTree(os.getpid(), os.environ.get(TAG, ""), Segments())
    requests: SimpleQueue[bytes] = SimpleQueue()
    dying = Lock()
    for job in (lambda: _receive(connection, requests), _outlive_parent(os.getppid())):
        Thread(target=_then_die, args=(job, tree, dying), daemon=True).start()
    while True:
        name, arguments = pickle.loads(requests.get())
        try:
            connection.send_bytes(_answer(handlers, name, arguments))
        except (
            OSError
        ):  # the parent is gone: leave the end to the threads, which take the tree along
            signal.pause()
        if name == "close":
            return


def _answer(handlers: Handlers, name: str, arguments: dict[str, Any]) -> bytes:
    function = handlers.get(name, (lambda: None) if name == "close" else None)
    try:
        if function is None:
            raise LookupError(f"no function is called {name!r}; there are {', '.join(handlers)}")
        return pickle.dumps(("ok", function(**arguments)))
    except (Exception, SystemExit) as error:  # whatever it is, the caller is to hear of it
        traceback.print_exc()
        return pickle.dumps(("error", type(error).__name__, str(error)))


def _receive(connection: Connection, requests: SimpleQueue[bytes]) -> None:
    """Until the channel's other end closes, which is noticed amid a long call as well."""
    while True:
        try:
            requests.put(connection.recv_bytes())
        except (EOFError, OSError):
            return


def _outlive_parent(parent: int) -> Callable[[], None]:
    """Ends when we are another's child: a fork of the parent may keep the channel open."""

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)

    return wait


def _then_die(job: Callable[[], None], tree: ProcessTree, dying: Lock) -> None:
    job()
    with dying:  # the other thread waits here for the end
        try:
            tree.stop(_GRACE_S)
        finally:
            os._exit(1)
