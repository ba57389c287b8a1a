"""A function on every rank of a layout, on a cluster of several local nodes: answers, errors, and what is left."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

import psutil
import pytest
import ray
from ray.util import placement_group_table

from moesd_dist.sweep.cluster.calibrate import RanksFailed, on_cluster, on_ranks
from moesd_dist.sweep.cluster.crew import ClusterSettings
from moesd_dist.sweep.cluster.start import start_ray, stop_ray
from moesd_dist.sweep.schedule.needs import Needs

pytestmark = pytest.mark.usefixtures("cluster")

SETTINGS = ClusterSettings(nodes=2, cpus_per_node=2, place_s=10.0)


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of two CPUs each, whatever this machine has."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    start_ray(SETTINGS.address, runtime_env={}, local=SETTINGS.local)
    yield
    stop_ray()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def who(place):
    return place, os.environ["MOESD_NODE_ID"], os.environ["OMP_NUM_THREADS"]


def fails(place):
    if place.rank == 1:
        raise MemoryError("no room\nfor the buffer")
    time.sleep(300)


def dies(place):
    if place.rank == 1:
        os._exit(1)
    time.sleep(300)


def hangs(place):
    time.sleep(300 if place.rank == 0 else 0)


def asked(function, *, ranks, nodes, within_s=60.0):
    needs = Needs(ranks=ranks, nodes=nodes)
    return on_ranks(function, needs=needs, settings=SETTINGS, within_s=within_s)


@pytest.mark.parametrize(
    ("ranks", "nodes"),
    [
        pytest.param(1, 1, id="alone"),
        pytest.param(2, 1, id="two on a node"),
        pytest.param(2, 2, id="one on each of two nodes"),
        pytest.param(4, 2, id="two on each of two nodes"),
    ],
)
def test_each_rank_runs_where_the_layout_says(ranks, nodes):
    answers = asked(who, ranks=ranks, nodes=nodes)
    places = [place for place, *_ in answers]
    assert [place.rank for place in places] == list(range(ranks))
    assert {(place.size, place.address, place.port) for place in places} == {
        (ranks, places[0].address, places[0].port)
    }
    hosts = [node for _, node, _ in answers]
    assert len(set(hosts)) == nodes
    assert [hosts.index(node) for node in hosts] == [rank * nodes // ranks * (ranks // nodes) for rank in range(ranks)]  # fmt: skip
    assert {threads for *_, threads in answers} == {"1"}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        pytest.param(fails, "^rank 1 of 2: MemoryError: no room for the buffer$", id="one raises"),
        pytest.param(dies, "^rank 1 of 2: its worker died: [^\n]*$", id="one dies"),
        pytest.param(hangs, "^rank 0 of 2: no answer within 3 s$", id="one hangs"),
    ],
)
def test_a_rank_that_breaks_is_one_line_with_its_name(function, message):
    began = time.monotonic()
    with pytest.raises(RanksFailed, match=message):
        asked(function, ranks=2, nodes=2, within_s=3.0 if function is hangs else 60.0)
    assert time.monotonic() - began < 30.0


def test_ranks_leave_their_room():
    asked(who, ranks=4, nodes=2)
    states = {entry["state"] for entry in placement_group_table().values()}
    assert states == {"REMOVED"}


def test_ranks_that_the_nodes_cannot_hold_are_refused():
    with pytest.raises(ValueError, match=r"3 x 1 CPUs and 0 GPUs on one node; .* have 2 and 0; 2"):
        asked(who, ranks=3, nodes=1)


def test_a_cluster_that_is_there_stays():
    with on_cluster(SETTINGS):
        pass
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2


def test_all_nodes_listen_on_the_loopback_alone():
    heard = {
        ip for process in psutil.Process().children(recursive=True) for ip in heard_at(process)
    }
    assert heard
    assert heard <= {"127.0.0.1", "::ffff:127.0.0.1"}, heard


def heard_at(process):
    """Addresses at which it listens; workers come and go."""
    with suppress(psutil.NoSuchProcess):
        return [c.laddr.ip for c in process.net_connections("inet") if c.status == "LISTEN"]
    return []
