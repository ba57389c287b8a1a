"""An engine gets nodes that have the room and the labels, and leaves whole nodes whole."""

from __future__ import annotations

import pytest

from benchmarks.makespan import group
from moesd_dist.sweep.grouping import engine_key
from moesd_dist.sweep.schedule.board import Board
from moesd_dist.sweep.schedule.needs import Needs, Room
from moesd_dist.sweep.schedule.nodes import Nodes
from moesd_dist.sweep.schedule.placement import bundles, check_room, strategy
from moesd_dist.sweep.schedule.work import Loaded

KIND = "ray.io/accelerator-type"
H200 = ((KIND, "H200"),)


def rooms(*gpus, cpus=16, kinds=()):
    labels = [{KIND: kind} if kind else {} for kind in kinds] or [{}] * len(gpus)
    return [
        Room(node_id=name, cpus=cpus, gpus=count, labels=own)
        for name, count, own in zip("abcdefgh", gpus, labels, strict=False)
    ]


def find(needs, all_rooms, left, avoid=()):
    """The nodes that are chosen while others use the rest of the room, and go on."""
    used = {
        engine_key(group(place, 1)): Needs(cpus=r.cpus - cpus, gpus=r.gpus - gpus)
        for place, r in enumerate(all_rooms)
        for cpus, gpus in [left[r.node_id]]
    }
    others = [
        Loaded(engine_id=place, key=key, nodes=(room.node_id,), busy=True)
        for place, (key, room) in enumerate(zip(used, all_rooms, strict=True))
    ]
    nodes = Nodes(all_rooms, used.__getitem__)
    spot = Board(nodes, others).spot(
        nodes.kind(needs), frozenset(avoid), lambda engine: engine is None
    )
    return spot.nodes if spot else None


def free(*gpus, cpus=16):
    return {name: (cpus, count) for name, count in zip("abcdefgh", gpus, strict=False)}


@pytest.mark.parametrize(
    ("needs", "nodes", "expected", "packing"),
    [
        pytest.param(
            Needs(cpus=2, gpus=1), ("a",), [{"CPU": 2, "GPU": 1}], "STRICT_PACK", id="one rank"
        ),
        pytest.param(
            Needs(ranks=3, gpus=2),
            ("a",) * 3,
            [{"CPU": 1, "GPU": 2}] * 3,
            "STRICT_PACK",
            id="ranks on one node have a bundle each",
        ),
        pytest.param(
            Needs(ranks=16, nodes=2, cpus=2, gpus=1),
            ("a", "b"),
            [{"CPU": 16, "GPU": 8}] * 2,
            "STRICT_SPREAD",
            id="nodes have a bundle each",
        ),
        pytest.param(
            Needs(whole_node=True), ("a",), [{"CPU": 16}], "STRICT_PACK", id="all CPUs of the node"
        ),
        pytest.param(
            Needs(ranks=2, whole_node=True),
            ("a",) * 2,
            [{"CPU": 8}] * 2,
            "STRICT_PACK",
            id="ranks share a node's CPUs, and no other engine does",
        ),
        pytest.param(
            Needs(gpus=1, whole_node=True),
            ("a",),
            [{"CPU": 1, "GPU": 1}],
            "STRICT_PACK",
            id="a GPU engine does not need all CPUs",
        ),
    ],
)
def test_the_bundles_hold_all_ranks(needs, nodes, expected, packing):
    by_id = {room.node_id: room for room in rooms(8, 8)}
    assert bundles(needs, by_id, nodes) == expected
    assert strategy(needs) == packing


@pytest.mark.parametrize(
    ("needs", "left", "expected"),
    [
        pytest.param(Needs(gpus=1), (8, 8, 3), ("c",), id="the fullest node that holds it"),
        pytest.param(Needs(gpus=4), (8, 8, 3), ("a",), id="too full is no use"),
        pytest.param(Needs(ranks=2, gpus=4), (4, 8, 4), ("b",) * 2, id="ranks stay together"),
        pytest.param(Needs(ranks=2, nodes=2, gpus=8), (8, 2, 8), ("a", "c"), id="two whole nodes"),
        pytest.param(Needs(ranks=2, nodes=2, gpus=1), (8, 2, 1), ("c", "b"), id="two full nodes"),
        pytest.param(Needs(ranks=2, nodes=2, gpus=8), (8, 2, 7), None, id="one node is not two"),
        pytest.param(Needs(cpus=1), (8, 0, 3), ("b",), id="without a GPU where none is free"),
        pytest.param(Needs(cpus=17), (8, 8, 8), None, id="not enough CPUs"),
    ],
)
def test_small_engines_fill_the_fuller_nodes(needs, left, expected):
    assert find(needs, rooms(8, 8, 8), free(*left), avoid=()) == expected


def test_a_cpu_engine_waits_for_a_node_of_its_own():
    needs = Needs(whole_node=True)
    assert find(needs, rooms(0, 0), {"a": (15, 0), "b": (16, 0)}, ()) == ("b",)
    assert find(needs, rooms(0, 0), {"a": (15, 0), "b": (15, 0)}, ()) is None


def test_an_engine_runs_on_nodes_that_carry_its_labels():
    two = rooms(8, 8, kinds=("L40", "H200"))
    assert find(Needs(gpus=1, labels=H200), two, free(4, 8), ()) == ("b",)
    assert find(Needs(gpus=1, labels=H200), two, free(8, 0), ()) is None
    assert find(Needs(gpus=1), two, free(4, 8), ()) == ("a",)


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        pytest.param(Needs(gpus=1), None, id="waits for a node that can hold it"),
        pytest.param(Needs(gpus=8), ("a",), id="no other node ever can"),
        pytest.param(Needs(ranks=2, nodes=2, gpus=4), ("b", "a"), id="both nodes are needed"),
    ],
)
def test_a_node_to_avoid_is_taken_only_if_the_others_could_never_hold_it(needs, expected):
    left = {"a": (16, 8), "b": (16, 4 if needs.nodes > 1 else 0)}
    assert find(needs, rooms(8, 4), left, avoid={"a"}) == expected


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        pytest.param(
            Needs(ranks=3, gpus=4),
            "3 data-parallel ranks need 3 x 1 CPUs and 4 GPUs on one node; .* have 16 and 8; 16 and 8;.*layout.nodes=N",
            id="too many ranks",
        ),
        pytest.param(
            Needs(gpus=9), "an engine needs 1 CPUs and 9 GPUs on one node;", id="too large"
        ),
        pytest.param(
            Needs(ranks=4, nodes=4, gpus=1), "ranks need .* on 4 nodes, evenly;", id="too few nodes"
        ),
        pytest.param(
            Needs(labels=((KIND, "B200"),)),
            f"no node carries {KIND}=B200; the nodes carry H200, L40;",
            id="no such kind",
        ),
        pytest.param(
            Needs(ranks=2, nodes=2, labels=H200),
            f"2 nodes are needed and only 1 carry {KIND}=H200;",
            id="too few of the kind",
        ),
    ],
)
def test_what_no_node_could_ever_hold_is_refused(needs, message):
    with pytest.raises(ValueError, match=message):
        check_room(needs, rooms(8, 8, kinds=("L40", "H200")))


@pytest.mark.parametrize(
    "needs",
    [
        pytest.param(Needs(gpus=8, labels=H200), id="a node"),
        pytest.param(Needs(ranks=2, nodes=2, gpus=8), id="both nodes"),
        pytest.param(Needs(whole_node=True), id="all CPUs of a node"),
    ],
)
def test_what_an_empty_cluster_holds_passes(needs):
    check_room(needs, rooms(8, 8, kinds=("L40", "H200")))
