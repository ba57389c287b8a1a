"""Expert parallelism over nodes with networks of their own: validated, slowed down, and cut in two."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from moesd_dist.records import Failed, Measurement, Outcome
from moesd_dist.records.serial import outcome_from_plain
from moesd_dist.sweep.statistics import metrics
from tests.cluster.nodes import Cluster, cluster, wait

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.alone]

POINTS_FAILED = 3
MBIT = 500
TIMEOUT_S = 5.0
QUICK = (
    "model=embedded_small",
    "sweep.repeats=3",
    "sweep.warmup_rounds=1",
    "sweep.end_to_end_repeats=0",
    "hardware.foreign_load_cores=9",
)


@pytest.fixture(scope="module")
def three(environment: dict[str, str]) -> Iterator[Cluster]:
    """A head and three nodes, each in a network of its own."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with cluster(3, environment, apart=True, cpus=2) as made:
        yield made


@dataclass(slots=True)
class Sweep:
    """`python -m moesd_dist` on the cluster, in a folder of its own."""

    folder: Path
    settings: tuple[str, ...]
    process: subprocess.Popen[str] = field(init=False)

    def start(self, made: Cluster) -> Sweep:
        own = ("cluster=existing", f"cluster.address={made.address}", "cluster.sentinel_every=0")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moesd_dist", *self.settings, *own, f"output={self.folder}/out"],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self

    def end(self, within_s: float = 280.0) -> str:
        said, _ = self.process.communicate(timeout=within_s)
        return said

    @property
    def outcomes(self) -> list[Outcome]:
        """What the journal has so far, in the order in which it came."""
        lines = [line for path in self.folder.rglob("*.jsonl") for line in path.open()]
        kept = (json.loads(line.partition(" ")[2]) for line in lines if line.endswith("\n"))
        return [
            outcome_from_plain(line["outcome"]) for line in kept if line.get("kind") == "outcome"
        ]


def validation(folder: Path, *settings: str) -> Sweep:
    folder.mkdir()
    grid = (
        "sweep.ranks=[1,3]",
        "layout.nodes=3",
        "workload.output_tokens=24",
        "sweep.batch_size=[6,192]",
        "sweep.gamma=[1,3]",
    )
    return Sweep(folder, ("+exp=ep_validation", *QUICK, *grid, *settings))


@pytest.fixture(scope="module")
def free(three: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, str]:
    """Links as fast as the machine is."""
    sweep = validation(tmp_path_factory.mktemp("apart") / "free").start(three)
    return sweep, sweep.end()


@pytest.fixture(scope="module")
def slow(three: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, str]:
    """The same with every link as slow as MBIT."""
    for node in three.nodes:
        three.links.limit(node.number, MBIT)
    try:
        sweep = validation(tmp_path_factory.mktemp("apart") / "slow").start(three)
        return sweep, sweep.end()
    finally:
        for node in three.nodes:
            three.links.unlimit(node.number)


def over_three(sweep: Sweep) -> dict[tuple[int, int], dict[str, float]]:
    """Metrics by batch size and gamma."""
    found = (
        o for o in sweep.outcomes if isinstance(o, Measurement) and o.point.layout.dp_size == 3
    )
    return {(m.point.batch_size, m.point.gamma): metrics(m) for m in found}


def foretold(sweep: Sweep) -> list[dict[str, str]]:
    with (sweep.folder / "out" / "ep_validation.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_validation_runs_over_three_nodes(free):
    sweep, said = free
    assert sweep.process.returncode == 0, said
    print(said[said.find("verdict") :])
    points = over_three(sweep)
    assert set(points) == {(b, g) for b in (6, 192) for g in (0, 1, 3)}
    for found in points.values():
        assert found["load_imbalance"] >= 1.0
        assert 0.0 < found["communication_share"] < 1.0
    assert "foretold before any was measured" in said
    for quantity in ("activated", "imbalance", "communication", "target efficiency", "speedup"):
        assert quantity in said


def test_a_slower_link_raises_the_communication_share(free, slow):
    assert slow[0].process.returncode == 0, slow[1]
    before, after = over_three(free[0]), over_three(slow[0])
    for (batch_size, gamma), found in after.items():
        share = before[batch_size, gamma]["communication_share"]
        print(f"B={batch_size} gamma={gamma}: {share:.3f} -> {found['communication_share']:.3f}")
    largest = max(after)  # where bytes decide, not the number of messages
    for name in ("communication_share", "communication_s"):
        assert after[largest][name] > 1.1 * before[largest][name]


def test_the_calibrated_model_follows_a_slower_link(slow):
    """Where the link decides: the largest batch with the longest drafts."""
    rows = [r for r in foretold(slow[0]) if "communication" in r["quantity"]]
    for row in rows:
        print(row)
    (decisive,) = (r for r in rows if (r["batch_size"], r["gamma"]) == ("192", "3"))
    assert abs(float(decisive["predicted"]) / float(decisive["measured"]) - 1.0) <= 0.25


def test_a_link_cut_inside_a_collective_fails_the_point_and_the_sweep_goes_on(three, tmp_path):
    """Nodes reach the head, and so Ray is content, but not each other: only the group can tell."""
    numbers = [node.number for node in three.nodes]
    sizes = [4, 5, 6, 7]
    sweep = Sweep(
        tmp_path,
        (
            "+exp=quickstart",
            *QUICK,
            "layout=dp2_ep",
            "layout.nodes=2",
            f"sweep.batch_size={sizes}",
            "sweep.gamma=[3]",
            "sweep.window_tokens=600",
            f"engine.collective_timeout_s={TIMEOUT_S}",
            "engine.start_timeout_s=30",
            "cluster.attempts_on_error=1",
        ),
    ).start(three)
    wait(lambda: len(sweep.outcomes) >= 2, "the first group is measured", 120)
    time.sleep(1.0)  # into the next one
    three.links.isolate(*numbers)
    cut = time.monotonic()
    try:
        wait(lambda: any(isinstance(o, Failed) for o in sweep.outcomes), "a point has failed", 60)
        noticed = time.monotonic() - cut
    finally:
        three.links.unite(*numbers)
    said = sweep.end()
    failed = [o for o in sweep.outcomes if isinstance(o, Failed)]
    measured = [o for o in sweep.outcomes if isinstance(o, Measurement)]
    print(f"FAULT link cut inside a collective: Failed after {noticed:.1f} s, timeout {TIMEOUT_S}")
    print(failed[0].reason)
    assert sweep.process.returncode == POINTS_FAILED, said
    assert "rank" in failed[0].reason
    assert noticed < TIMEOUT_S + 4.0  # two seconds are for the rank that is out of reach
    last = {o.point.point_id: o for o in sweep.outcomes}
    assert len(last) == 2 * len(sizes)
    assert len(measured) >= len(sizes)
