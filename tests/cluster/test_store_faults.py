"""The MLflow server dies and comes back, the disk of the store fills up: nothing is lost or doubled."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.nodes import Cluster, answers, free_port, wait
from tests.cluster.sweeps import Sweep, breaks

pytestmark = pytest.mark.cluster

GROUPS = range(1, 9)
AT = 3
DOWN_S = 5.0
DISK = "4m"


@pytest.fixture
def sweep(here: Cluster, tmp_path: Path) -> Sweep:
    return Sweep(tmp_path, GROUPS, address=here.address)


class Server:
    """`mlflow server` on the loopback, over a database that outlives it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port("127.0.0.1")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        store = f"sqlite:///{self.folder}/mlflow.db"
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--backend-store-uri", store]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        wait(lambda: answers("127.0.0.1", self.port), "the MLflow server answers")

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def server(tmp_path: Path, empty_database: Path) -> Iterator[Server]:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    made = Server(tmp_path)
    made.start()
    yield made
    made.kill()


def test_an_mlflow_server_that_dies_and_comes_back_gets_every_point_once(sweep, server):
    def kill(sweep):
        sweep.wait_for(AT)
        with breaks(sweep):
            server.kill()
        noticed_s.append(sweep.wait_for_outage())
        time.sleep(DOWN_S)
        server.start()

    noticed_s = []
    sweep.uri = server.uri
    sweep.run(kill)
    sweep.say(f"MLflow server killed, back {DOWN_S:.0f} s later", *noticed_s)
    sweep.kept_once()


@pytest.mark.root
def test_a_full_disk_of_the_store_delays_what_is_kept_there(sweep, small_disk, empty_database):
    def fill(sweep):
        sweep.wait_for(AT)
        with breaks(sweep), (small_disk / "ballast").open("wb", buffering=0) as ballast:
            fill_up(ballast)
        noticed_s.append(sweep.wait_for_outage())
        sweep.wait_for(GROUPS[-1])
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)

    noticed_s = []
    shutil.copy(empty_database, small_disk / "mlflow.db")
    sweep.uri = f"sqlite:///{small_disk}/mlflow.db"
    sweep.run(fill)
    sweep.say("tracking disk full, enlarged when all was measured", *noticed_s)
    sweep.kept_once()


def fill_up(file) -> None:
    """Until not one byte more is taken."""
    for size in (1 << 20, 4096, 1):
        try:
            while True:
                file.write(b"x" * size)
        except OSError:
            continue


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
