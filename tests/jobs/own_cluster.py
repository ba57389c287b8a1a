"""Ray nodes of a test's own: real processes on loopback addresses, ended with the test."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from jobs.cluster_env import node_environment
from moesd_dist.sweep.cluster.environment import token_file

ROOT = Path(__file__).parents[2]
STORE_BYTES = 100_000_000
OVER = ("SUCCEEDED", "FAILED", "STOPPED")


class OwnCluster:
    """A head with the job service, and more nodes: each with an address, all with one token."""

    def __init__(self, folder: Path, port: int) -> None:
        self.address, self.dashboard = f"127.0.0.2:{port}", f"http://127.0.0.1:{port + 2}"
        own = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = own | node_environment({}, token_file(folder / "token")) | {"PATH": path}
        self._port, self._folder = port, folder
        self._temp = tempfile.mkdtemp(prefix="mr", dir="/tmp")  # sockets have short names only
        self._nodes: list[subprocess.Popen[bytes]] = []

    def start_head(self) -> None:
        ports = {"port": self._port, "ray_client_server_port": self._port + 1}
        shown = {"dashboard_host": "127.0.0.1", "dashboard_port": self._port + 2}
        self._start("--head", node_ip_address="127.0.0.2", num_cpus=2, **(ports | shown))

    def start_node(self, address: str) -> subprocess.Popen[bytes]:
        return self._start(f"--address={self.address}", node_ip_address=address, num_cpus=1)

    def answers(self, *, within_s: float) -> bool:
        """Whether jobs can be submitted; the dashboard is the last to be there."""

        def answer() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port + 2), 1):
                return self._ray("job", "list").returncode == 0
            return False

        return bool(wait_for(answer, within_s=within_s))

    def said(self, node: subprocess.Popen[bytes]) -> str:
        return (self._folder / f"node{self._nodes.index(node)}.log").read_text()

    def job(self, name: str, arguments: Sequence[str], *, home: Path) -> str:
        """How the job ended."""
        self.submit(name, arguments, home=home)
        return self.ended(name)

    def submit(self, name: str, arguments: Sequence[str], *, home: Path) -> None:
        kept = {"MOESD_HOME": str(home), "PYTHONPATH": str(ROOT), "RAY_JOB_STOP_WAIT_TIME_S": "60"}
        given = json.dumps({"env_vars": kept})
        words = ("--no-wait", "--submission-id", name, "--runtime-env-json", given)
        done = self._ray("job", "submit", *words, "--", "python", "-m", "jobs.sweep", *arguments)
        assert done.returncode == 0, done.stderr

    def stop(self, name: str) -> None:
        """At once: the command takes seconds to start, in which a short sweep is over."""
        self._asked(f"{name}/stop", method="POST")

    def ended(self, name: str) -> str:
        def over() -> str:
            status = str(self._asked(name)["status"])
            return status if status in OVER else ""

        return str(wait_for(over, within_s=90, every_s=0.2))

    def log_of(self, name: str) -> str:
        found = list(Path(self._temp).glob(f"session_2*/logs/job-driver-{name}.log"))
        return found[0].read_text() if found else ""

    def end(self) -> None:
        for node in self._nodes:
            for pid in (node.pid, *(child.pid for child in _children(node.pid))):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            node.wait()
        shutil.rmtree(self._temp, ignore_errors=True)

    def _start(self, role: str, **options: str | int) -> subprocess.Popen[bytes]:
        given = {"dashboard_agent_listen_port": 0, "temp_dir": self._temp}
        given |= {"object_store_memory": STORE_BYTES} | options
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        with (self._folder / f"node{len(self._nodes)}.log").open("wb") as log:
            node = subprocess.Popen(
                ["ray", "start", "--block", "--disable-usage-stats", role, *flags],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._nodes.append(node)
        return node

    def _asked(self, of: str, *, method: str = "GET") -> dict[str, object]:
        """What the job service answers."""
        token = Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        request = urllib.request.Request(
            f"{self.dashboard}/api/jobs/{of}",
            headers={"Authorization": f"Bearer {token}"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.load(answer))

    def _ray(self, *words: str) -> subprocess.CompletedProcess[str]:
        asked = self.environment | {"RAY_ADDRESS": self.dashboard}
        return subprocess.run(["ray", *words], env=asked, capture_output=True, text=True)


def raylet_of(node: subprocess.Popen[bytes]) -> psutil.Process:
    (found,) = [child for child in _children(node.pid) if child.name() == "raylet"]
    return found


def _children(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def wait_for(what, *, within_s: float, every_s: float = 0.1):
    """The first true answer; the last one if none came in time."""
    deadline = time.monotonic() + within_s
    while not (answer := what()) and time.monotonic() < deadline:
        time.sleep(every_s)
    return answer


def free_port() -> int:
    """The first of three in a row that are free, below the ports of Ray's workers."""
    taken = {c.laddr.port for c in psutil.net_connections("tcp") if c.laddr}
    start = 4000 + os.getpid() % 1000 * 5  # another test process looks elsewhere
    return next(p for p in range(start, 9990, 5) if not taken & {p, p + 1, p + 2})


@contextmanager
def own_cluster(folder: Path) -> Iterator[OwnCluster]:
    cluster = OwnCluster(folder, free_port())
    try:
        yield cluster
    finally:
        cluster.end()
