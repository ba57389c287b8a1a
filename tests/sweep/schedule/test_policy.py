"""What runs next follows from what waits, what is loaded and what the nodes have."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from benchmarks.makespan import group
from moesd_dist.sweep.grouping import engine_key
from moesd_dist.sweep.schedule.needs import Needs, Room
from moesd_dist.sweep.schedule.policy import Policy
from moesd_dist.sweep.schedule.waiting import Waiting
from moesd_dist.sweep.schedule.work import Loaded, Start, Stop, Submit, Work

ONE, TWO, NODE, PAIR = (
    Needs(gpus=1),
    Needs(gpus=2),
    Needs(gpus=8),
    Needs(ranks=2, nodes=2, gpus=8),
)
START_S = 100.0


class Sweep:
    """Keys by name, their works by length, and engines by name of their key."""

    def __init__(self, *, nodes=2, gpus=8, one_by_one=False, **needs):
        self.rooms = [Room(node_id=name, cpus=16, gpus=gpus) for name in "abcdefgh"[:nodes]]
        self.keys = {name: engine_key(group(place, 1)) for place, name in enumerate(needs)}
        self.needs = {self.keys[name]: of_key for name, of_key in needs.items()}
        self.waiting, self.engines = Waiting(), []
        start_s = dict.fromkeys(self.needs, START_S).__getitem__
        self.policy = Policy(self.needs.__getitem__, start_s, one_by_one=one_by_one)

    def waits(self, name, *seconds, avoid=()):
        for each in seconds:
            work = Work(
                group=group(0, len(self.waiting) + 1),
                key=self.keys[name],
                seconds=each,
                avoid=frozenset(avoid),
            )
            self.waiting.push(work)
        return self

    def loaded(self, name, *nodes, free_in_s=0.0):
        engine = Loaded(
            engine_id=len(self.engines),
            key=self.keys[name],
            nodes=nodes,
            busy=free_in_s > 0,
            free_in_s=free_in_s,
        )
        self.engines.append(engine)
        return self

    def decided(self):
        """In short: (what, engine or key, nodes, seconds)."""
        names = {key: name for name, key in self.keys.items()}
        found = []
        for action in self.policy.decide(self.waiting, self.engines, self.rooms):
            match action:
                case Start():
                    found.append(("start", names[action.key], action.nodes, action.work.seconds))
                case Submit():
                    found.append(("submit", action.engine_id, action.work.seconds))
                case Stop():
                    found.append(("stop", action.engine_id))
        return found


def test_a_loaded_engine_is_used_before_another_is_started():
    sweep = Sweep(a=ONE).waits("a", 50.0).loaded("a", "a")
    assert sweep.decided() == [("submit", 0, 50.0)]


def test_the_longest_groups_go_first():
    sweep = Sweep(a=ONE, b=ONE).waits("a", 10.0, 30.0, 20.0).waits("b", 40.0)
    assert [(name, seconds) for _, name, _, seconds in sweep.decided()][:2] == [
        ("a", 30.0),
        ("b", 40.0),
    ]


def test_engines_run_side_by_side_where_they_fit():
    sweep = Sweep(a=ONE, b=TWO, c=NODE).waits("a", 500.0).waits("b", 500.0).waits("c", 500.0)
    assert sorted(sweep.decided()) == [
        ("start", "a", ("b",), 500.0),
        ("start", "b", ("b",), 500.0),
        ("start", "c", ("a",), 500.0),
    ]


@pytest.mark.parametrize(
    ("seconds", "engines"),
    [
        pytest.param([10.0] * 10, 0, id="a start takes as long as all that is left"),
        pytest.param([1000.0] * 15, 15, id="each group is longer than a start"),
        pytest.param([1000.0] * 40, 15, id="as many as there is room for"),
    ],
)
def test_further_engines_are_started_where_they_pay(seconds, engines):
    sweep = Sweep(a=ONE).waits("a", *seconds).loaded("a", "a")
    starts = [action for action in sweep.decided() if action[0] == "start"]
    assert len(starts) == min(engines, len(seconds) - 1)


def test_an_idle_engine_that_nothing_waits_for_makes_room():
    sweep = Sweep(nodes=1, a=NODE, b=NODE).waits("b", 10.0).loaded("a", "a")
    assert sweep.decided() == [("stop", 0), ("start", "b", ("a",), 10.0)]


def test_an_idle_engine_stays_while_there_is_room_elsewhere():
    sweep = Sweep(nodes=2, a=NODE, b=NODE).waits("b", 10.0).loaded("a", "a")
    assert sweep.decided() == [("start", "b", ("b",), 10.0)]
    assert sweep.policy.unused(sweep.waiting, sweep.engines) == [Stop(engine_id=0)]


def test_nodes_are_kept_for_a_wide_engine_until_there_are_enough():
    """Two of three nodes empty first: what they would be given ends too late, the third goes on."""
    sweep = Sweep(nodes=3, a=NODE, w=PAIR).waits("a", *[600.0] * 9).waits("w", 900.0)
    sweep.loaded("a", "a").loaded("a", "b", free_in_s=300.0).loaded("a", "c", free_in_s=599.0)
    assert sweep.decided() == []
    sweep.waits("a", 200.0)
    assert sweep.decided() == [("submit", 0, 200.0)]


def test_a_wide_engine_starts_once_its_nodes_are_free():
    sweep = Sweep(nodes=3, a=NODE, w=PAIR).waits("a", *[600.0] * 9).waits("w", 900.0)
    sweep.loaded("a", "a").loaded("a", "b").loaded("a", "c", free_in_s=299.0)
    assert sweep.decided() == [
        ("stop", 0),
        ("stop", 1),
        ("start", "w", ("a", "b"), 900.0),
    ]


def test_narrow_engines_that_keep_coming_starve_no_wide_one():
    """Played on: every narrow group that ends is followed by a new one, and the wide one still runs."""
    sweep = Sweep(nodes=4, a=ONE, w=PAIR).waits("a", *[100.0] * 64).waits("w", 500.0)
    for node in "abcd":
        for _ in range(8):
            sweep.loaded("a", node, free_in_s=1.0 + len(sweep.engines))
    for _ in range(200):
        actions = sweep.policy.decide(sweep.waiting, sweep.engines, sweep.rooms)
        if any(isinstance(a, Start) and a.key == sweep.keys["w"] for a in actions):
            return
        stopped = {a.engine_id for a in actions if isinstance(a, Stop)}
        given = {a.engine_id: a.work for a in actions if isinstance(a, Submit)}
        for work in given.values():
            sweep.waiting.remove(work)
            sweep.waits("a", 100.0)
        engines = [e for e in sweep.engines if e.engine_id not in stopped]
        engines = [
            replace(e, busy=True, free_in_s=given[e.engine_id].seconds)
            if e.engine_id in given
            else e
            for e in engines
        ]
        step = min(e.free_in_s for e in engines if e.busy)
        sweep.engines = [
            replace(e, busy=e.free_in_s > step, free_in_s=max(0.0, e.free_in_s - step))
            for e in engines
        ]
    pytest.fail("the wide engine never started")


def test_one_place_is_not_handed_to_and_fro():
    sweep = Sweep(nodes=1, gpus=0, a=Needs(whole_node=True), b=Needs(whole_node=True))
    sweep.waits("a", 1.0, 1.0).waits("b", 1000.0).loaded("a", "a")
    assert sweep.decided() == [("submit", 0, 1.0)]


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        pytest.param(2, [("start", "a", ("b",), 50.0)], id="another node can hold it"),
        pytest.param(1, [("submit", 0, 50.0)], id="there is no other"),
    ],
)
def test_a_work_goes_to_other_nodes_than_it_failed_on(nodes, expected):
    sweep = Sweep(nodes=nodes, a=NODE).waits("a", 50.0, avoid="a").loaded("a", "a")
    assert sweep.decided() == expected


def test_an_engine_on_a_lost_node_gets_nothing():
    sweep = Sweep(nodes=1, a=ONE).waits("a", 50.0).loaded("a", "gone")
    assert sweep.decided() == [("start", "a", ("a",), 50.0)]


def test_a_full_board_of_idle_engines_is_no_deadlock():
    """Both nodes are taken by engines that must not have what waits."""
    sweep = Sweep(nodes=2, a=NODE, b=NODE).waits("a", 50.0, avoid="a").waits("b", 50.0, avoid="b")
    sweep.loaded("a", "a").loaded("b", "b")
    assert sweep.decided()


def test_equal_arguments_give_equal_actions_and_leave_what_waits():
    sweep = Sweep(nodes=4, a=ONE, w=PAIR).waits("a", *[100.0] * 64).waits("w", 500.0)
    first = sweep.decided()
    assert sweep.decided() == first
    assert len(sweep.waiting) == 65


def test_equals_wait_in_the_order_in_which_they_came():
    sweep = Sweep(a=ONE).waits("a", 5.0, 7.0, 5.0, 7.0)
    order = [w.group.baseline.batch_size for w in sweep.waiting.taken(sweep.keys["a"])]
    assert order == [2, 4, 1, 3]
    assert not len(sweep.waiting)
    assert sweep.waiting.keys() == []


def test_2500_groups_wait_and_leave_in_no_time():
    sweep = Sweep(a=ONE, b=ONE)
    works = [
        Work(group=group(0, i + 1), key=sweep.keys["ab"[i % 2]], seconds=i % 97)
        for i in range(2500)
    ]
    began = time.process_time()
    waiting = Waiting(works)
    for _ in range(2500):
        actions = sweep.policy.decide(waiting, [], sweep.rooms[:1])
        waiting.remove(actions[0].work)
    assert time.process_time() - began < 1.0


def nodes_of_one_machine():
    return Sweep(one_by_one=True, a=ONE, b=ONE).waits("b", 40.0)


def test_nodes_that_share_a_machine_get_one_engine_at_a_time():
    sweep = nodes_of_one_machine().waits("a", 50.0)
    assert len([what for what, *_ in sweep.decided() if what == "start"]) == 1


def test_on_such_nodes_another_engine_waits_for_the_one_that_works():
    assert nodes_of_one_machine().loaded("a", "a", free_in_s=9.0).decided() == []
    again = nodes_of_one_machine().waits("a", 50.0).loaded("a", "a")
    assert again.decided() == [("submit", 0, 50.0)]


def test_on_such_nodes_another_engine_takes_the_place_of_an_idle_one():
    stopped, (started, key, *_) = nodes_of_one_machine().loaded("a", "a").decided()
    assert stopped == ("stop", 0)
    assert (started, key) == ("start", "b")
