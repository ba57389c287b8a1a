"""Ray nodes on this machine that can be killed, switched off and cut off, each alone."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psutil

OBJECT_STORE_BYTES = 80_000_000
MARK = "MOESD_TEST_NODE"  # in the environment of every process of a node
START_S = 60.0
HEAD_ADDRESS = "127.0.0.2"  # `ray start` takes 127.0.0.1 for the machine's public address


@dataclass(slots=True)
class Node:
    """`mark` is in the environment of its processes; `wire` is its end of the link at the bridge."""

    mark: str
    address: str
    namespace: str = ""
    wire: str = ""
    log: Path = Path()

    @property
    def ready(self) -> bool:
        return "Ray runtime started" in self.log.read_text()

    def processes(self) -> list[psutil.Process]:
        return [p for p in psutil.process_iter() if _environment(p).get(MARK) == self.mark]


@dataclass(slots=True)
class Cluster:
    """A head without CPUs and nodes of one CPU; `apart`: each node in a network of its own.

    The head and the driver share the machine's own network.
    """

    folder: Path  # short: Ray's sockets lie below it and their paths are limited
    environment: Mapping[str, str]
    apart: bool = False
    head: Node | None = None
    nodes: list[Node] = field(default_factory=list)
    port: int = 0
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _tag: str = field(default_factory=lambda: f"{os.getpid() % 46656:x}{int(time.time()) % 256:x}")

    @property
    def address(self) -> str:
        assert self.head is not None
        return f"{self.head.address}:{self.port}"

    @property
    def bridge(self) -> str:
        return f"mb{self._tag}"

    @property
    def subnet(self) -> str:
        return f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"

    def node(self, mark: str) -> Node:
        return next(node for node in self.nodes if node.mark == mark)

    def start(self, size: int) -> None:
        if self.apart:
            ip("link", "add", self.bridge, "type", "bridge")
            ip("address", "add", f"{self.subnet}.1/24", "dev", self.bridge)
            ip("link", "set", self.bridge, "up")
        head = Node(f"{self._tag}-head", f"{self.subnet}.1" if self.apart else HEAD_ADDRESS)
        self.head, self.port = head, free_port(head.address)
        own = ("--head", f"--port={self.port}", "--num-cpus=0")
        self._ray_start(
            head,
            *own,
            "--include-dashboard=false",
            f"--ray-client-server-port={free_port(head.address)}",
        )
        wait(lambda: answers(head.address, self.port), "the head answers")
        for _ in range(size):
            self.add()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Until every node that was added has joined."""
        for node in self.nodes:
            wait(lambda node=node: node.ready, f"{node.mark} has joined")

    def add(self, *, cpus: int = 1, **environment: str) -> Node:
        """One more node; returns before it has joined."""
        number = next(self._numbers)
        node = Node(f"{self._tag}-{number}", f"127.0.0.{number + 2}")
        if self.apart:
            node.address = f"{self.subnet}.{number + 1}"
            node.namespace, node.wire = f"mn{self._tag}-{number}", f"mw{self._tag}-{number}"
            self._lay(node)
        self.nodes.append(node)
        self._ray_start(node, f"--address={self.address}", f"--num-cpus={cpus}", **environment)
        return node

    def kill_raylet(self, node: Node) -> None:
        """The raylet alone: its workers are left to see it for themselves."""
        for process in node.processes():
            if Path(process.name()).name == "raylet":
                process.kill()

    def power_off(self, node: Node) -> None:
        """Nobody hears that the connections end: the link goes first."""
        if self.apart:
            self.cut(node)
        _kill(node)
        self.nodes.remove(node)

    def cut(self, node: Node) -> None:
        """Packets are lost without a word in both directions; the interfaces stay up."""
        ip("link", "set", node.wire, "nomaster")

    def heal(self, node: Node) -> None:
        ip("link", "set", node.wire, "master", self.bridge)

    def stop(self) -> None:
        everything = [*self.nodes, *([self.head] if self.head else [])]
        for node in everything:
            _kill(node)
        if self.apart:
            names = _lines("ip", "-o", "netns", "list")
            for name in names:
                if name.split()[0].startswith(f"mn{self._tag}-"):
                    ip("netns", "delete", name.split()[0])
            ip("link", "delete", self.bridge)

    def _lay(self, node: Node) -> None:
        ip("netns", "add", node.namespace)
        inside = ("peer", "name", "eth0", "netns", node.namespace)
        ip("link", "add", node.wire, "type", "veth", *inside)
        ip("link", "set", node.wire, "master", self.bridge)
        ip("link", "set", node.wire, "up")
        own = ("-n", node.namespace)
        ip(*own, "address", "add", f"{node.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip(*own, "link", "set", device, "up")

    def _ray_start(self, node: Node, *arguments: str, **environment: str) -> None:
        inside = ("ip", "netns", "exec", node.namespace) if node.namespace else ()
        command = [
            *inside,
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
            f"--node-ip-address={node.address}",
            f"--temp-dir={self.folder / node.mark}",  # shared, sockets of one name would be made twice
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            *("--min-worker-port=0", "--max-worker-port=0", "--include-log-monitor=false"),
            *("--disable-usage-stats", f'--resources={{"at:{node.mark}": 1}}'),
            *arguments,
        ]
        own = {"RAY_USAGE_STATS_ENABLED": "0", MARK: node.mark}
        node.log = self.folder / f"{node.mark}.log"
        with node.log.open("w") as log:
            subprocess.Popen(
                command,
                env={**os.environ, **self.environment, **environment, **own},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )


@contextmanager
def cluster(size: int, environment: Mapping[str, str], *, apart: bool = False) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="mr", dir="/tmp"))
    made = Cluster(folder, environment, apart=apart)
    try:
        made.start(size)
        yield made
    except BaseException:
        for log in folder.glob("*.log"):
            print(f"== {log.name} ==", *log.read_text().splitlines()[-10:], sep="\n")
        raise
    finally:
        made.stop()
        os.environ.get("KEEP") or shutil.rmtree(folder, ignore_errors=True)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:  # gone, or of another user
        return {}


def _kill(node: Node) -> None:
    """Until none is left: one that is just being started has no mark yet."""
    while found := node.processes():
        for process in found:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(found, timeout=5)


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
