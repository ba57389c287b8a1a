"""A calibration of nodes behind real links finds how fast they are, and ends when they are cut."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moesd_dist import calibrations
from moesd_dist.records.calibration import ALL_TO_ALL
from tests.cluster.nodes import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.root]

ROOT = Path(__file__).parents[2]
MBIT = 40
# Of the link's rate: between two ranks gloo sends in one direction at a time, though the link is
# full duplex (plain sockets get 0.95 in both at once), and headers take some of it.
LEAST, MOST = 0.4, 1.0
QUICK = ("--repeats", "3", "--span", "0.1", "--read-mib", "8", "--largest", "1048576")


def calibrate(cluster: Cluster, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """One rank on each of the two nodes, by a driver on the head's network."""
    settings = ("cluster=existing", f"cluster.address={cluster.address}")
    layout = ("--ranks", "2", "--nodes", "2")
    return subprocess.run(
        [sys.executable, "-m", "jobs.calibrate", *layout, *QUICK, *options, "--out", str(out), *settings],
        env={**os.environ, **cluster.environment, "PYTHONPATH": str(ROOT)},
        cwd=out.parent,
        capture_output=True,
        text=True,
        timeout=250,
    )  # fmt: skip


def test_the_bandwidth_of_a_limited_link_is_found(apart: Cluster, tmp_path: Path):
    node = apart.nodes[0]
    apart.links.limit(node.number, MBIT)
    try:
        done = calibrate(apart, tmp_path / "limited.json")
    finally:
        apart.links.unlimit(node.number)
    assert done.returncode == 0, done.stderr
    found = calibrations.read(tmp_path / "limited.json")
    (timed,) = (c for c in found.collectives if c.collective == ALL_TO_ALL)
    # Of the two largest sizes: what is smaller than the queue of the link is not held up by it.
    bytes_per_s = (timed.row_bytes[-1] - timed.row_bytes[-2]) / (
        timed.seconds[-1] - timed.seconds[-2]
    )
    print(f"a link of {MBIT} Mbit/s: {bytes_per_s * 8 / 1e6:.1f} Mbit/s, {timed}")
    assert LEAST < bytes_per_s * 8 / 1e6 / MBIT < MOST


def test_nodes_that_cannot_reach_each_other_end_it_in_one_line(apart: Cluster, tmp_path: Path):
    """Ray's own connections live, so nothing but a time limit can end it."""
    numbers = [node.number for node in apart.nodes]
    apart.links.isolate(*numbers)
    try:
        done = calibrate(apart, tmp_path / "cut.json", "--timeout", "5", "--within", "40")
    finally:
        apart.links.unite(*numbers)
    assert done.returncode == 3
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("moesd-dist: rank")]
    print(line)
    assert "of 2: " in line
    assert not (tmp_path / "cut.json").exists()
