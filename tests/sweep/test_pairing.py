"""Baseline and SD are measured in turn, and every wanted point gets exactly one outcome."""

from __future__ import annotations

from itertools import pairwise

import pytest

from moesd_dist.records import Failed, Infeasible, LayoutSpec, Measurement, Role
from moesd_dist.sweep.grid import expand
from moesd_dist.sweep.grouping import engine_key, groups
from moesd_dist.sweep.pairing import LoadLimit, measure_group


def test_repeats_interleave_forwards_and_backwards(base, formula_engine):
    engine = formula_engine()
    (group,) = groups(expand(base(), {"gamma": [1, 3]}), finished=())
    measure_group(engine, group, LoadLimit())
    assert [gamma for _, gamma, _ in engine.log] == [0, 1, 3, 3, 1, 0, 0, 1, 3]
    assert [repeat for _, _, repeat in engine.log] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_one_baseline_serves_all_gammas(base, formula_engine):
    engine = formula_engine()
    (group,) = groups(expand(base(), {"gamma": [1, 2, 3]}), finished=())
    outcomes = measure_group(engine, group, LoadLimit())
    assert [o.point.gamma for o in outcomes] == [0, 1, 2, 3]
    assert len({o.baseline for o in outcomes}) == 1


def test_speedups_pair_the_repeats_of_the_same_number(base, formula_engine):
    (group,) = groups(expand(base(), {"gamma": [2], "batch_size": [2]}), finished=())
    measured = measure_group(formula_engine(), group, LoadLimit())[1]
    assert isinstance(measured, Measurement)
    # Each repeat is slower than the last for both, so every paired ratio is the same: half of two
    # drafts is accepted, two tokens a round for twice the time.
    assert measured.paired_speedups() == pytest.approx([1.0, 1.0, 1.0])


def test_only_missing_points_are_wanted_and_a_finished_baseline_is_not_recorded_again(
    base, formula_engine
):
    points = expand(base(), {"gamma": [1, 3]})
    finished = {points[0].point_id, points[1].point_id}
    (group,) = groups(points, finished)
    outcomes = measure_group(formula_engine(), group, LoadLimit())
    assert [o.point.gamma for o in outcomes] == [3]


def test_a_finished_group_is_not_visited(base):
    points = expand(base(), {"gamma": [1], "batch_size": [1, 2]})
    finished = {p.point_id for p in points if p.batch_size == 1}
    assert [g.baseline.batch_size for g in groups(points, finished)] == [2]


def test_a_point_that_does_not_fit_is_infeasible_and_so_is_its_group(base, formula_engine):
    (group,) = groups(expand(base(), {"batch_size": [64], "gamma": [1]}), finished=())
    outcomes = measure_group(formula_engine(memory=32), group, LoadLimit())
    assert [type(o) for o in outcomes] == [Infeasible, Infeasible]
    assert [o.point.gamma for o in outcomes] == [0, 1]


def test_foreign_load_is_flagged_or_refused(base, formula_engine):
    engine = formula_engine()
    engine.foreign_cpu = 0.9
    (group,) = groups(expand(base(), {"gamma": [1]}), finished=())
    flagged = measure_group(engine, group, LoadLimit(cores=0.5))
    refused = measure_group(engine, group, LoadLimit(cores=0.5, refuse=True))
    assert [o.flags for o in flagged] == [("foreign_load",)] * 2
    assert all(isinstance(o, Failed) and "0.9 cores" in o.reason for o in refused)


@pytest.mark.parametrize(
    ("changes", "starts", "flags"),
    [
        pytest.param({}, 0, (), id="nothing to say"),
        pytest.param({}, 1, ("engine_restarts",), id="an engine was started again"),
        pytest.param({"cpu_fixes": True}, 0, ("cpu_fixes",), id="a repaired engine, timed"),
        pytest.param(
            {"cpu_fixes": True, "layout": LayoutSpec(dp_size=2)},
            0,
            ("cpu_fixes", "untimed"),
            id="a repaired engine over several ranks",
        ),
        pytest.param({"layout": LayoutSpec(ep_size=2)}, 0, (), id="several ranks as they are"),
    ],
)
def test_what_a_reader_must_know_is_flagged(base, formula_engine, changes, starts, flags):
    engine = formula_engine()
    engine.engine_starts = starts
    (group,) = groups(expand(base(**changes), {"gamma": [1]}), finished=())
    assert [o.flags for o in measure_group(engine, group, LoadLimit())] == [flags] * 2


def test_experts_that_could_not_be_seen_are_flagged(base, formula_engine):
    engine = formula_engine()
    engine.sees_experts = False
    (group,) = groups(expand(base(), {"gamma": [1]}), finished=())
    assert [o.flags for o in measure_group(engine, group, LoadLimit())] == [("no_routing",)] * 2


def test_an_engine_that_holds_one_setting_at_a_time_visits_each_twice(base, formula_engine):
    class Alone(formula_engine):
        def together(self, points):
            return False

    engine = Alone()
    (group,) = groups(expand(base(), {"gamma": [1, 2]}), finished=())
    measure_group(engine, group, LoadLimit())
    order = [gamma for _, gamma, _ in engine.log]
    switches = sum(a != b for a, b in pairwise(order))
    assert switches == 4  # 0 1 2 and back: 2 1 0
    assert sorted(turn for _, gamma, turn in engine.log if gamma == 2) == list(
        range(group.baseline.protocol.repeats)
    )


def test_a_restart_of_the_baseline_is_flagged_at_the_points_paired_with_it(base, formula_engine):
    class Restarted(formula_engine):
        def measure(self, point, repeat):
            self.engine_starts = int(point.gamma == 0 and repeat == 1)
            return super().measure(point, repeat)

    (group,) = groups(expand(base(), {"gamma": [1]}), finished=())
    outcomes = measure_group(Restarted(), group, LoadLimit())
    assert [o.flags for o in outcomes] == [("engine_restarts",)] * 2


def test_a_gamma_that_breaks_leaves_the_others_measured(base, formula_engine):
    class Brittle(formula_engine):
        def measure(self, point, repeat):
            if point.gamma == 3 and repeat == 1:
                raise MemoryError("no room for three drafts")
            return super().measure(point, repeat)

    (group,) = groups(expand(base(), {"gamma": [1, 3]}), finished=())
    outcomes = {o.point.gamma: o for o in measure_group(Brittle(), group, LoadLimit())}
    assert isinstance(outcomes[0], Measurement)
    assert isinstance(outcomes[1], Measurement)
    assert isinstance(outcomes[3], Failed)
    assert "no room for three drafts" in outcomes[3].reason
    assert len(outcomes[1].repeats) == 3


def test_points_of_one_model_pair_share_an_engine(base):
    points = expand(base(), {"batch_size": [1, 2], "top_k": [2, 4], "gamma": [1, 3]})
    assert len({engine_key(group) for group in groups(points, finished=())}) == 1


def test_a_control_is_measured_as_a_point_of_its_own(base, formula_engine):
    engine = formula_engine()
    (group,) = groups(expand(base(), {"gamma": [0]}, control=True), finished=())
    outcomes = measure_group(engine, group, LoadLimit())
    assert [o.point.role for o in outcomes] == [Role.baseline, Role.control]
    assert len(engine.log) == 6
