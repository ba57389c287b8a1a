"""Ray nodes on this machine that can be killed, switched off and cut off, each alone."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.cluster.links import Links

OBJECT_STORE_BYTES = 80_000_000
MARK = "MOESD_TEST_NODE"  # in the environment of every process of a node
START_S = 60.0


@dataclass(slots=True)
class Node:
    number: int
    mark: str
    address: str
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def ready(self) -> bool:
        return "Ray runtime started" in self.log.read_text()

    def processes(self) -> list[psutil.Process]:
        """Of the whole node, workers included."""
        return [p for p in psutil.process_iter() if _environment(p).get(MARK) == self.mark]

    def kill(self) -> None:
        """Until none is left: one that is just being started has no mark yet."""
        while found := self.processes():
            for process in found:
                with _may_be_gone():
                    process.kill()
            psutil.wait_procs(found, timeout=5)
        if self.process is not None:
            self.process.wait()


@dataclass(slots=True)
class Cluster:
    """A head without CPUs and nodes of `cpus`; `links` gives each node a network of its own.

    The head and the driver share the machine's own network.
    """

    folder: Path  # short: Ray's sockets lie below it and their paths are limited
    environment: Mapping[str, str]
    tag: str
    links: Links | None = None
    cpus: int = 1  # that a node says it has
    nodes: list[Node] = field(default_factory=list)  # those that nothing was done to
    port: int = 0
    _started: list[Node] = field(default_factory=list)  # the head first

    @property
    def address(self) -> str:
        return f"{self._started[0].address}:{self.port}"

    def node(self, mark: str) -> Node:
        return next(node for node in self.nodes if node.mark == mark)

    def start(self, size: int) -> None:
        if self.links is not None:
            self.links.build()
        head = self._next()
        self.port, client_port = free_port(head.address), free_port(head.address)
        ports = (f"--port={self.port}", f"--ray-client-server-port={client_port}")
        self._launch(head, "--head", *ports, "--num-cpus=0", "--include-dashboard=false")
        wait(lambda: answers(head.address, self.port), "the head answers")
        for _ in range(size):
            self.add()
        self.wait_ready()

    def add(self) -> None:
        """One more node; `wait_ready` waits until it has joined."""
        node = self._next()
        self.nodes.append(node)
        if self.links is not None:
            self.links.lay(node.number)
        self._launch(node, f"--address={self.address}", f"--num-cpus={self.cpus}")

    def wait_ready(self) -> None:
        for node in self.nodes:
            wait(lambda node=node: node.ready, f"{node.mark} has joined")

    def kill_raylet(self, node: Node) -> None:
        """The raylet alone: its workers are left to see it for themselves."""
        self.nodes.remove(node)
        for process in node.processes():
            if process.name() == "raylet":
                process.kill()

    def power_off(self, node: Node) -> None:
        """With a network of its own, the link goes first: nobody hears that its connections end."""
        self.nodes.remove(node)
        if self.links is not None:
            self.links.cut(node.number)
        node.kill()

    def stop(self) -> None:
        for node in reversed(self._started):
            node.kill()
        if self.links is not None:
            self.links.remove()

    def _next(self) -> Node:
        number = len(self._started) + 1
        mark = f"{self.tag}-{number}"
        # `ray start` takes 127.0.0.1 for the machine's public address.
        address = self.links.address(number) if self.links else f"127.0.0.{number + 1}"
        self._started.append(Node(number, mark, address, self.folder / f"{mark}.log"))
        return self._started[-1]

    def _launch(self, node: Node, *arguments: str) -> None:
        own = {"RAY_USAGE_STATS_ENABLED": "0", MARK: node.mark}
        with node.log.open("w") as log:
            node.process = subprocess.Popen(
                [*self._inside(node), *_RAY_START, *_options(node, self.folder), *arguments],
                env={**os.environ, **self.environment, **own},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def _inside(self, node: Node) -> tuple[str, ...]:
        if self.links is None or node.number not in self.links.wires:
            return ()
        return ("ip", "netns", "exec", self.links.namespace(node.number))


_RAY_START = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block")


def _options(node: Node, folder: Path) -> list[str]:
    return [
        f"--node-ip-address={node.address}",
        f"--temp-dir={folder / node.mark}",  # nodes that share one choose the same socket names
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--include-log-monitor=false",
        "--disable-usage-stats",
    ]


@contextmanager
def cluster(
    size: int, environment: Mapping[str, str], *, apart: bool = False, cpus: int = 1
) -> Iterator[Cluster]:
    """Gone at the end, whatever happens; what its nodes said last is printed if something does."""
    folder = Path(tempfile.mkdtemp(prefix="mr", dir="/tmp"))
    tag = folder.name[-5:]
    made = Cluster(folder, environment, tag, Links(tag) if apart else None, cpus)
    try:
        made.start(size)
        yield made
    except BaseException:
        for log in folder.glob("*.log"):
            print(f"== {log.name} ==", *log.read_text().splitlines()[-10:], sep="\n")
        raise
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def free_port(address: str) -> int:
    with socket.socket() as free:
        free.bind((address, 0))
        return int(free.getsockname()[1])


def answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def wait(until: Callable[[], bool], what: str, within_s: float = START_S) -> float:
    """Seconds it took."""
    began = time.monotonic()
    while not until():
        if time.monotonic() - began > within_s:
            raise TimeoutError(f"not within {within_s:.0f} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - began


def _environment(process: psutil.Process) -> dict[str, str]:
    with _may_be_gone():
        return process.environ()
    return {}


@contextmanager
def _may_be_gone() -> Iterator[None]:
    """Or of another user."""
    with suppress(psutil.Error):
        yield
