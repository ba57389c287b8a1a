"""A rehearsed sweep is nearly as short as any schedule could be, and breaks no rule on the way."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from benchmarks.makespan import BAR, FAMILIES, LABEL, Load, group, wide
from moesd_dist.sweep.grouping import engine_key
from moesd_dist.sweep.schedule.bounds import lower_bound_s
from moesd_dist.sweep.schedule.needs import Needs, Room
from moesd_dist.sweep.schedule.placement import share
from moesd_dist.sweep.schedule.rehearsal import rehearse
from moesd_dist.sweep.schedule.work import Work

SEEDS = range(1000, 1005)  # others than the benchmark prints
CASES = [
    pytest.param(family, seed, id=f"{family}, seed {seed}")
    for family, seed in itertools.product(FAMILIES, SEEDS)
]


def small(random, *, cpu=False, kinds=("H200", "L40", "H200")):
    """A few works on three little nodes, some for one kind of node alone."""
    rooms = [
        Room(node_id=f"n{i}", cpus=random.randint(4, 8), gpus=0 if cpu else 4, labels={LABEL: kind})
        for i, kind in enumerate(kinds)
    ]
    needs, works = {}, []
    for number in range(random.randint(1, 6)):
        labels = random.choice([(), (), ((LABEL, "H200"),)])
        gpus = random.choice([Needs(gpus=1), Needs(gpus=2), Needs(gpus=4), Needs(ranks=2, gpus=2)])
        pair = Needs(ranks=2, nodes=2, gpus=random.choice([1, 4]), labels=labels)
        alone = Needs(whole_node=random.random() < 0.5, labels=labels)
        shape = alone if cpu else random.choice([gpus, pair])
        groups = [group(number, size) for size in range(1, random.randint(2, 9))]
        needs[engine_key(groups[0])] = shape
        works += [_work(g, random.uniform(1, 50), random) for g in groups]
    return Load(works=works, rooms=rooms, needs=needs, start_s=dict.fromkeys(needs, 20.0))


def _work(of_group, seconds, random):
    avoid = frozenset(random.choice([(), (), (), ("n0",), ("n0", "n2")]))
    return Work(group=of_group, key=engine_key(of_group), seconds=seconds, avoid=avoid)


def rows(rehearsal, rooms):
    """(node, began, ended, CPUs, GPUs) of every engine on every node."""
    by_id = {room.node_id: room for room in rooms}
    return [
        (node, run.began_s, run.ended_s, *share(run.needs, by_id[node]))
        for run in rehearsal.engines
        for node in set(run.nodes)
    ]


@pytest.mark.parametrize(("family", "seed"), CASES)
def test_a_sweep_on_64_gpus_is_at_most_15_percent_longer_than_the_lower_bound(family, seed):
    load = FAMILIES[family](Random(seed))
    rehearsal = load.rehearsed()
    assert rehearsal.lower_bound_s <= rehearsal.makespan_s <= BAR * rehearsal.lower_bound_s
    assert sorted(map(id, load.works)) == sorted(id(done.work) for done in rehearsal.finished)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("cpu", [False, True], ids=["GPUs", "CPUs"])
def test_no_node_is_overcommitted_and_every_work_runs_once_on_nodes_with_its_labels(seed, cpu):
    load = small(Random(seed), cpu=cpu)
    rehearsal = load.rehearsed()
    assert sorted(map(id, load.works)) == sorted(id(done.work) for done in rehearsal.finished)
    used = rows(rehearsal, load.rooms)
    for room in load.rooms:
        for now in {began for node, began, *_ in used if node == room.node_id}:
            there = [row for row in used if row[0] == room.node_id and row[1] <= now < row[2]]
            assert sum(row[3] for row in there) <= room.cpus
            assert sum(row[4] for row in there) <= room.gpus
    labels = {room.node_id: dict(room.labels) for room in load.rooms}
    for run in rehearsal.engines:
        assert all(dict(run.needs.labels).items() <= labels[node].items() for node in run.nodes)
        assert len(set(run.nodes)) == run.needs.nodes
        assert all(done.work.key == run.key for done in run.done)
        assert all(a.ended_s <= b.began_s for a, b in itertools.pairwise(run.done))


def test_a_work_is_measured_on_other_nodes_than_it_avoids():
    load = small(Random(3))
    for run in load.rehearsed().engines:
        others = [r for r in load.rooms if dict(run.needs.labels).items() <= r.labels.items()]
        for done in run.done:
            possible = [room for room in others if room.node_id not in done.work.avoid]
            if len(possible) >= run.needs.nodes:
                assert not set(run.nodes) <= done.work.avoid


def numbers(*sizes, gpus, seconds, start_s=100.0, nodes=2):
    """One key for each size in `gpus`, with as many works of that many seconds."""
    works = [
        Work(group=group(key, i + 1), key=engine_key(group(key, i + 1)), seconds=seconds)
        for key, count in enumerate(sizes)
        for i in range(count)
    ]
    keys = list(dict.fromkeys(work.key for work in works))
    needs = {key: wide(width) for key, width in zip(keys, gpus, strict=True)}
    rooms = [Room(node_id=f"n{i}", cpus=64, gpus=8) for i in range(nodes)]
    return Load(works=works, rooms=rooms, needs=needs, start_s=dict.fromkeys(keys, start_s))


@pytest.mark.parametrize(
    ("load", "bound_s"),
    [
        pytest.param(numbers(1, gpus=[1], seconds=50), 150, id="one group after its start"),
        pytest.param(numbers(4, gpus=[16], seconds=50), 300, id="one at a time"),
        pytest.param(numbers(2, 2, gpus=[16, 16], seconds=50), 400, id="a start for each key"),
        pytest.param(numbers(3, gpus=[8], seconds=500), 1100, id="three groups, two places"),
        pytest.param(
            numbers(2, 1, gpus=[8, 16], seconds=500), 1150, id="what both nodes do in all"
        ),
        pytest.param(
            numbers(1, gpus=[16], seconds=50, nodes=3), 150, id="of three nodes one is idle"
        ),
        pytest.param(
            numbers(2, gpus=[16], seconds=500, nodes=3), 1100, id="three nodes hold no two pairs"
        ),
    ],
)
def test_the_lower_bound_is_what_one_works_out_by_hand(load, bound_s):
    found = lower_bound_s(load.works, load.rooms, load.needs.__getitem__, load.start_s.__getitem__)
    assert found == pytest.approx(bound_s, rel=1e-3)


def test_a_rehearsal_adds_up():
    load = numbers(4, gpus=[16], seconds=50)
    rehearsal = load.rehearsed()
    (run,) = rehearsal.engines
    assert rehearsal.makespan_s == run.ended_s == 300
    assert rehearsal.gpu_s == 16 * 300
    assert rehearsal.node_s == 0
    assert dict(rehearsal.starts) == {run.key: 1}
    assert rehearsal.critical_path == (run,)


def test_a_cpu_engine_counts_node_time():
    load = numbers(2, gpus=[1], seconds=50)
    rehearsal = rehearse(
        load.works,
        load.rooms,
        dict.fromkeys(load.needs, Needs(whole_node=True)).__getitem__,
        load.start_s.__getitem__,
    )
    assert rehearsal.gpu_s == 0
    assert rehearsal.node_s == 200


def test_the_critical_path_leads_back_to_the_beginning():
    load = numbers(2, 2, 2, gpus=[16, 16, 16], seconds=50)
    path = load.rehearsed().critical_path
    assert [run.began_s for run in path] == [0, 200, 400]


@pytest.mark.parametrize(
    ("gpu_hours", "works"),
    [
        pytest.param(0.0, 0, id="nothing"),
        pytest.param(16 * 199 / 3600, 1, id="a start and one group"),
        pytest.param(16 * 200 / 3600, 2, id="just two"),
        pytest.param(100.0, 4, id="all"),
    ],
)
def test_a_budget_buys_what_is_finished_before_it_is_spent(gpu_hours, works):
    bought = numbers(4, gpus=[16], seconds=50).rehearsed().within(gpu_hours)
    assert len(bought.works) == bought.points == works


def test_what_has_no_room_is_not_waited_for():
    load = numbers(1, gpus=[16], seconds=50, nodes=1)
    with pytest.raises(ValueError, match="check_room"):
        load.rehearsed()


def test_nothing_to_do_takes_no_time():
    rehearsal = rehearse([], [Room(node_id="a", cpus=1)], {}.__getitem__, {}.__getitem__)
    assert rehearsal.makespan_s == rehearsal.lower_bound_s == 0
    assert rehearsal.critical_path == ()
    assert not rehearsal.within(1.0).works
