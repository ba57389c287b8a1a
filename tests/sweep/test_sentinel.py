"""Sentinels: which point they are, when they are due, and what they make of a node that changes."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from moesd_dist.records import LayoutSpec, Role
from moesd_dist.sweep.grid import expand
from moesd_dist.sweep.grouping import engine_key, groups
from moesd_dist.sweep.pairing import LoadLimit, measure_group
from moesd_dist.sweep.sentinel import (
    FLAG,
    Watch,
    as_group,
    change,
    sentinel_of,
)
from moesd_dist.sweep.watches import Watches, uneven_nodes

TENTH = 0.1


@pytest.fixture
def todo(base):
    return groups(expand(base(), {"batch_size": [4, 1, 8], "gamma": [1, 3]}), finished=())


@pytest.fixture
def measured(formula_engine, todo):
    """Outcomes of the groups, three points a group."""
    return [measure_group(formula_engine(), group, LoadLimit()) for group in todo]


@pytest.fixture
def at(formula_engine, todo):
    """The sentinel as it comes back from a machine so many times slower than the first."""

    def sentinel(slower: float):
        (found,) = measure_group(formula_engine(), as_group(sentinel_of(todo)), LoadLimit())
        seconds = [r.median_target_s * slower for r in found.repeats]
        changed = zip(found.repeats, seconds, strict=True)
        repeats = tuple(replace(r, median_target_s=s) for r, s in changed)
        return replace(found, repeats=repeats, baseline=repeats)

    return sentinel


def watch(*, every: int = 6, tried: set[str] | None = None) -> Watch:
    return Watch(node="n1", every=every, tolerance=TENTH, tried=set() if tried is None else tried)


def ids(measurements) -> list[str]:
    return [m.point.point_id for m in measurements]


def test_the_sentinel_is_the_cheapest_baseline_and_no_point_of_the_sweep(todo):
    sentinel = sentinel_of(todo)
    assert (sentinel.batch_size, sentinel.gamma) == (1, 0)
    assert sentinel.role is Role.sentinel
    assert sentinel.point_id not in {p.point_id for g in todo for p in (g.baseline, *g.points)}


def test_a_sweep_with_the_sentinels_own_protocol_has_another_point(base):
    short = sentinel_of(groups(expand(base(), {"gamma": [1]}), finished=())).protocol
    (group,) = groups(expand(base(protocol=short), {"gamma": [1]}), finished=())
    assert sentinel_of([group]).point_id != group.baseline.point_id


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"engine": "analytic"}, id="a formula stands for the clock"),
        pytest.param(
            {"cpu_fixes": True, "layout": LayoutSpec(dp_size=2)}, id="its seconds mean nothing"
        ),
    ],
)
def test_points_without_a_clock_have_no_sentinel(base, changes):
    assert sentinel_of(groups(expand(base(**changes), {"gamma": [1]}), finished=())) is None


def test_a_sentinel_is_due_after_so_many_points(measured, at):
    seen = watch(every=4)
    seen.judge(at(1.0))
    seen.add(measured[0])
    assert (seen.due, seen.unjudged) == (False, 3)
    seen.add(measured[1])
    assert (seen.due, seen.unjudged) == (True, 6)
    seen.judge(at(1.0))
    assert (seen.due, seen.unjudged) == (False, 0)


@pytest.mark.parametrize(
    ("slower", "drifted"),
    [
        pytest.param(1.0, False, id="as before"),
        pytest.param(1.08, False, id="within the tolerance"),
        pytest.param(1.2, False, id="beyond it, but not with its whole interval"),
        pytest.param(1.6, True, id="slower"),
        pytest.param(0.6, True, id="faster"),
    ],
)
def test_a_drift_is_an_interval_that_lies_beyond_the_tolerance(at, slower, drifted):
    seen = watch()
    seen.judge(at(1.0))
    verdict = seen.judge(at(slower))
    assert verdict.drifted is drifted
    assert verdict.ratio == pytest.approx(slower)
    assert verdict.interval.low < slower < verdict.interval.high
    assert bool(verdict.text) is drifted


def test_points_since_the_last_good_sentinel_are_measured_again(measured, at):
    seen = watch()
    seen.judge(at(1.0))
    seen.add(measured[0])
    seen.judge(at(1.0))
    seen.add(measured[1])
    verdict = seen.judge(at(2.0))
    assert ids(verdict.again) == ids(measured[1])
    assert verdict.kept == ()
    assert set(verdict.withdrawn) == set(ids(measured[1]))
    assert "n1 drifted to 2.00" in verdict.text
    assert "3 points" in verdict.text


def test_what_a_recovered_node_measured_again_is_good(measured, at):
    seen = watch()
    seen.judge(at(1.0))
    seen.add(measured[0])
    seen.judge(at(2.0))
    seen.add(measured[0])
    verdict = seen.judge(at(1.0))
    assert (verdict.drifted, verdict.withdrawn, seen.unjudged) == (False, {}, 0)


def test_a_point_that_drifts_again_is_kept_with_a_flag(measured, at):
    seen = watch()
    seen.judge(at(1.0))
    seen.add(measured[0])
    seen.judge(at(2.0))
    seen.add(measured[0])
    seen.add(measured[1])
    verdict = seen.judge(at(4.0))  # yet another level: what is new has its second chance
    assert ids(verdict.again) == ids(measured[1])
    assert ids(verdict.kept) == ids(measured[0])
    assert all(m.flags == (FLAG,) for m in verdict.kept)
    assert set(verdict.withdrawn) == {*ids(measured[0]), *ids(measured[1])}


def test_a_node_that_stays_slow_has_a_new_level(measured, at):
    seen = watch()
    seen.judge(at(1.0))
    before = seen.seconds
    seen.judge(at(2.0))
    seen.add(measured[0])
    settled = seen.judge(at(2.0))
    assert ids(settled.kept) == ids(measured[0])
    assert settled.again == ()
    assert "has settled at 2.00" in settled.text
    assert seen.seconds == pytest.approx(2 * before)
    assert not seen.judge(at(2.0)).drifted
    assert seen.judge(at(1.0)).drifted  # fast again


def test_no_point_is_measured_a_third_time_on_whatever_node(measured, at):
    tried: set[str] = set()
    here, there = watch(tried=tried), watch(tried=tried)
    for seen in (here, there):
        seen.judge(at(1.0))
    here.add(measured[0])
    assert ids(here.judge(at(2.0)).again) == ids(measured[0])
    there.add(measured[0])
    verdict = there.judge(at(2.0))
    assert (verdict.again, ids(verdict.kept)) == ((), ids(measured[0]))


def test_a_restarted_engine_is_held_against_the_nodes_first_one(measured, at):
    seen = watch()
    seen.judge(at(1.0))
    seen.add(measured[0])  # then its engine dies, and the next one opens with a sentinel
    assert ids(seen.judge(at(2.0)).again) == ids(measured[0])


def test_two_sentinels_without_spread_make_an_interval_of_one_ratio():
    found = change([0.01, 0.01], [0.02, 0.02])
    assert (found.low, found.high) == pytest.approx((2.0, 2.0))


def test_the_interval_holds_the_true_ratio_as_often_as_it_says():
    draw = random.Random(0)
    hits = 0
    for _ in range(2000):
        before = [math.exp(draw.gauss(0.0, 0.05)) for _ in range(9)]
        now = [1.3 * math.exp(draw.gauss(0.0, 0.1)) for _ in range(3)]
        found = change(before, now)
        hits += found.low < 1.3 < found.high
    assert 0.92 < hits / 2000 < 0.98


@pytest.mark.parametrize(
    ("seconds", "found"),
    [
        pytest.param({}, {}, id="no node"),
        pytest.param({"a": 1.0}, {}, id="one node"),
        pytest.param({"a": 1.0, "b": 1.05, "c": 1.0}, {}, id="alike"),
        pytest.param({"a": 1.0, "b": 1.5, "c": 1.0}, {"b": 1.5}, id="a slow one"),
        pytest.param({"a": 1.0, "b": 0.5, "c": 1.0}, {"b": 0.5}, id="a fast one"),
    ],
)
def test_uneven_nodes_are_those_beyond_tolerance_of_the_median(seconds, found):
    assert uneven_nodes(seconds, TENTH) == pytest.approx(found)


def test_nodes_are_compared_under_one_engine_and_named_once(todo, at):
    watches = Watches(every=6, tolerance=TENTH)
    key = engine_key(todo[0])
    assert watches.sentinel(key, todo) == watches.sentinel(key, []) == sentinel_of(todo)
    for node, slower in {"n1": 1.0, "n2": 1.0, "n3": 1.5}.items():
        watches.of(key, node).judge(at(slower))
    (line,) = watches.uneven()
    assert line.startswith("n3 takes 1.50 times")
    assert watches.uneven() == ()


def test_a_cluster_without_sentinels_asks_for_none(todo):
    assert Watches(every=0, tolerance=TENTH).sentinel(engine_key(todo[0]), todo) is None
