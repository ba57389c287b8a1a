"""The driver is killed, interrupted, or started twice: the same command goes on, and nothing is there twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import ray
from ray.util import placement_group_table

from moesd_dist.records import Measurement
from moesd_dist.sweep.stopping import listening
from tests.cluster.kept import FINISHED, kept
from tests.cluster.nodes import Cluster, wait
from tests.cluster.sweeps import Sweep, breaks, two_nodes

pytestmark = pytest.mark.cluster

BATCHES, GAMMAS = range(1, 301), (1, 2)  # so many that a driver has work left when it is stopped
POINTS = len(BATCHES) * (1 + len(GAMMAS))
SLOW, AT_ONCE_S = 3, 10.0
INTERRUPTED, USAGE_ERROR = 130, 2


@dataclass(slots=True)
class Command:
    """`python -m moesd_dist` for one and the same sweep, in a process of its own."""

    folder: Path
    address: str
    process: subprocess.Popen[str] | None = None
    said: str = ""
    took_s: float = 0.0
    found: int = 0  # in the journal when it was started
    lists: dict[str, list[int]] = field(
        default_factory=lambda: {"batch_size": list(BATCHES), "gamma": list(GAMMAS)}
    )

    def start(self) -> Command:
        self.found = self.journaled()
        arguments = ["engine=analytic", "sd=synthetic", "hardware=A800", "sweep.name=faults"]
        arguments += [f"sweep.{name}={values}" for name, values in self.lists.items()]
        arguments += ["cluster=existing", f"cluster.address={self.address}"]
        arguments += [f"tracking.uri={self.uri}", f"tracking.journal={self.folder}/journal"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moesd_dist", *arguments, f"hydra.run.dir={self.folder}/out"],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    def wait_for_more(self) -> None:
        """Until the journal has a tenth of the points more than it was started with."""
        enough = self.found + POINTS // 10
        wait(lambda: self.journaled() >= enough or not self.runs, f"{enough} points journaled")
        assert self.runs, self.end()

    def journaled(self) -> int:
        journals = (self.folder / "journal").rglob("*.jsonl")
        return sum(path.read_bytes().count(b'"kind":"outcome"') for path in journals)

    @property
    def runs(self) -> bool:
        assert self.process is not None
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> int:
        assert self.process is not None
        began = time.time()
        self.said, _ = self.process.communicate(timeout=120)
        self.took_s = time.time() - began
        return self.process.returncode


@pytest.fixture(scope="module")
def command(here: Cluster, tmp_path_factory: pytest.TempPathFactory, empty_database: Path):
    """Makes the same command again and again; what is left at the end is ended."""
    folder = tmp_path_factory.mktemp("command")
    two_nodes(here, folder, empty_database, batch_sizes=())
    made: list[Command] = []

    def make() -> Command:
        made.append(Command(folder, here.address))
        return made[-1].start()

    yield make
    for each in made:
        if each.runs:
            each.signal(signal.SIGKILL)


def test_of_two_drivers_started_at_once_one_says_so_and_stops(command):
    """The other one is killed, and so begins the story that the next tests go on with."""
    both = command(), command()
    wait(lambda: not all(driver.runs for driver in both), "one of them stops")
    left = next(driver for driver in both if driver.runs)
    stopped = next(driver for driver in both if driver is not left)
    assert stopped.end() == USAGE_ERROR, stopped.said
    assert "one driver at a time runs a sweep" in stopped.said
    left.wait_for_more()
    left.signal(signal.SIGKILL)
    assert left.end() == -signal.SIGKILL
    print(f"\nFAULT driver SIGKILL: {left.journaled()} of {POINTS} points in the journal, "
          f"{len(kept_so_far(left))} of them in MLflow")  # fmt: skip
    assert left.journaled() < POINTS


def test_an_interrupted_driver_says_how_to_go_on(command, here):
    driver = command()
    driver.wait_for_more()
    driver.signal(signal.SIGINT)
    assert driver.end() == INTERRUPTED, driver.said
    print(f"\nFAULT driver SIGINT: ended after {driver.took_s:.1f} s, {driver.journaled()} points")
    assert "points were finished by an earlier run" in driver.said
    assert "stopped by SIGINT with" in driver.said
    assert "the same command continues where it stopped" in driver.said
    assert driver.journaled() == len(kept_so_far(driver)) < POINTS
    assert placements(here) == {"REMOVED"}


def test_a_driver_interrupted_twice_ends_at_once(command, here):
    driver = command()
    driver.wait_for_more()
    driver.signal(signal.SIGINT)
    time.sleep(1.2)  # two at once are one
    driver.signal(signal.SIGINT)
    # The second one may come when Python itself is already ending; a shell shows 130 for that too.
    assert driver.end() in (INTERRUPTED, -signal.SIGINT), driver.said
    print(f"\nFAULT driver SIGINT twice: ended after {driver.took_s:.1f} s")
    assert driver.took_s < AT_ONCE_S
    assert placements(here) == {"REMOVED"}


def test_after_all_that_every_point_is_there_once(command):
    driver = command()
    assert driver.end() == 0, driver.said
    found = kept(driver.uri, "moesd-dist")
    print(f"\nFAULT driver SIGKILL, SIGINT, SIGINT twice, resumed: {len(found)} of {POINTS} points")
    assert len(found) == POINTS
    assert set(found.values()) == {FINISHED}
    again = command()
    assert again.end() == 0
    assert f"{POINTS} of {POINTS} points were finished by an earlier run" in again.said


def kept_so_far(driver: Command) -> dict[str, str]:
    return kept(driver.uri, "moesd-dist", whole=False)


def placements(here: Cluster) -> set[str]:
    """The states of all placement groups that there ever were."""
    ray.init(address=here.address, logging_level="ERROR", log_to_driver=False)
    try:
        wait(lambda: states() <= {"REMOVED"}, "the room of the engines is given back", within_s=10)
        return states()
    finally:
        ray.shutdown()


def states() -> set[str]:
    return {entry["state"] for entry in placement_group_table().values()}


@pytest.fixture
def sweep(here: Cluster, tmp_path: Path, empty_database: Path) -> Sweep:
    faults = {SLOW: "slow"}
    return two_nodes(here, tmp_path, empty_database, batch_sizes=range(1, 9), faults=faults)


def test_what_is_on_the_wire_when_it_is_interrupted_is_finished(sweep):
    def interrupt(sweep):
        sweep.wait_for(SLOW)
        with breaks(sweep):
            os.kill(os.getpid(), signal.SIGINT)

    with listening(sweep.stop):
        result = sweep.run(interrupt)
    assert all(isinstance(outcome, Measurement) for outcome in sweep.of(SLOW).values())
    assert result.stopped
    assert result.ending.startswith("stopped by SIGINT with ")
    resumed = sweep.again()
    assert resumed.run().reused == len(result.outcomes)
    resumed.kept_once()


def test_what_is_on_the_wire_when_it_is_interrupted_twice_is_not_waited_for(sweep):
    def interrupt(sweep):
        sweep.wait_for(SLOW)
        with breaks(sweep):
            os.kill(os.getpid(), signal.SIGINT)
        wait(lambda: bool(sweep.stop), "the first one is heard")  # two at once are one
        os.kill(os.getpid(), signal.SIGINT)

    with listening(sweep.stop), pytest.raises(KeyboardInterrupt):
        sweep.run(interrupt)
    assert time.time() - sweep.broken_at < 4  # the slow group takes six seconds
    resumed = sweep.again()
    resumed.run()
    resumed.kept_once()
