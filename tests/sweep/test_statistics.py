"""Intervals and figures of a measurement."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from moesd_dist.records import LayoutSpec
from moesd_dist.sweep.grid import expand
from moesd_dist.sweep.grouping import groups
from moesd_dist.sweep.pairing import LoadLimit, measure_group
from moesd_dist.sweep.statistics import metrics, paired_interval, speedup


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = random.Random(0)
    hits = 0
    for _ in range(2000):
        ratios = [1.3 * math.exp(rng.gauss(0, 0.05)) for _ in range(5)]
        interval = paired_interval(ratios)
        assert interval is not None
        hits += interval.low <= 1.3 <= interval.high
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)


def test_the_interval_of_the_inverse_is_the_inverse_interval():
    ratios = [1.1, 1.4, 1.25]
    one, other = paired_interval(ratios), paired_interval([1 / r for r in ratios])
    assert one is not None
    assert other is not None
    assert (other.low, other.high) == pytest.approx((1 / one.high, 1 / one.low))


def test_a_single_repeat_has_no_interval():
    assert paired_interval([1.2]) is None


@pytest.fixture
def measured(base, formula_engine):
    (group,) = groups(expand(base(), {"gamma": [4], "batch_size": [8]}), finished=())
    return measure_group(formula_engine(), group, LoadLimit())


def test_figures_follow_from_counts_and_seconds(measured):
    found = metrics(measured[1])
    # gamma 4, half accepted: 3 tokens a round; verification costs 3 decoding steps.
    assert found["acceptance_length"] == pytest.approx(3.0)
    assert found["sigma"] == pytest.approx(0.6)
    assert found["draft_acceptance_rate"] == pytest.approx(0.5)
    assert found["target_efficiency"] == pytest.approx(1 / 3)
    assert found["speedup"] == pytest.approx(1.0)
    assert found["acceptance_position_2"] == 1.0
    assert found["acceptance_position_3"] == 0.0
    assert found["tokens_per_s"] == pytest.approx(found["baseline_tokens_per_s"])


def test_the_factors_multiply_to_the_speedup(measured):
    found = metrics(measured[1])
    product = 5 * found["factor_acceptance"] * found["factor_target_efficiency"]
    product *= found["factor_drafting"] * found["factor_rejection"]
    assert product == pytest.approx(found["speedup_eq4"]) == pytest.approx(speedup(measured[1]))


def test_a_baseline_has_no_acceptance(measured):
    assert "sigma" not in metrics(measured[0])
    assert metrics(measured[0])["speedup"] == 1.0


def with_repeats(measured, ours, baseline):
    """The same changes in every repeat."""
    return replace(
        measured,
        repeats=tuple(replace(r, **ours) for r in measured.repeats),
        baseline=tuple(replace(r, **baseline) for r in measured.baseline),
    )


@pytest.mark.parametrize(
    ("name", "ours", "baseline", "expected"),
    [
        pytest.param("overhead_s", {"overhead_s": 0.02}, {}, 0.005, id="overhead a round"),
        pytest.param(
            "baseline_overhead_s", {}, {"overhead_s": 0.01}, 0.0025, id="the baseline's overhead"
        ),
        pytest.param("tpot_s", {"request_s": 3.0, "request_tokens": 60}, {}, 0.05, id="tpot"),
        pytest.param(
            "baseline_tpot_s",
            {},
            {"request_s": 6.0, "request_tokens": 60},
            0.1,
            id="the baseline's tpot",
        ),
        pytest.param(
            "scheduled_batch",
            {"scheduled_sequences": 60, "scheduled_steps": 8},
            {},
            7.5,
            id="scheduled batch",
        ),
        pytest.param(
            "end_to_end_tokens_per_s",
            {"end_to_end_s": 2.0, "end_to_end_tokens": 500},
            {},
            250.0,
            id="tokens/s to the last straggler",
        ),
        pytest.param(
            "baseline_end_to_end_tokens_per_s",
            {},
            {"end_to_end_s": 4.0, "end_to_end_tokens": 500},
            125.0,
            id="the baseline's tokens/s to the last straggler",
        ),
        pytest.param(
            "verified_tokens_per_sequence", {"verified_tokens": 96}, {}, 3.0, id="verified tokens"
        ),
        pytest.param(
            "engine_starts", {"engine_starts": 1}, {"engine_starts": 2}, 9.0, id="engine starts"
        ),
    ],
)
def test_what_only_some_engines_record_is_a_figure_where_it_is_there(
    measured, name, ours, baseline, expected
):
    # Three repeats of 4 rounds of 8 sequences.
    assert name not in metrics(measured[1])
    found = metrics(with_repeats(measured[1], ours, baseline))
    assert found[name] == pytest.approx(expected)


def test_time_per_output_token_is_a_ratio_of_totals(measured):
    one, *others = measured[1].repeats
    repeats = (replace(one, request_s=1.0, request_tokens=10),)
    repeats += tuple(replace(r, request_s=9.0, request_tokens=30) for r in others[:1])
    found = metrics(replace(measured[1], repeats=repeats, baseline=measured[1].baseline[:2]))
    assert found["tpot_s"] == pytest.approx(0.25)


FACTORS = ("acceptance", "target_efficiency", "drafting", "rejection")


def test_with_recorded_overhead_the_factors_multiply_to_the_measured_speedup(measured):
    of = measured[1]
    slow = replace(
        of,
        repeats=tuple(
            replace(r, seconds=r.target_s + r.draft_s + 0.2 * i, overhead_s=0.2 * i)
            for i, r in enumerate(of.repeats, 1)
        ),
        baseline=tuple(replace(r, seconds=r.target_s + 0.1, overhead_s=0.1) for r in of.baseline),
    )
    found = metrics(slow)
    product = 5 * math.prod(found[f"factor_{name}"] for name in (*FACTORS, "rest"))
    assert product == pytest.approx(found["speedup"])
    assert found["speedup_eq4"] == pytest.approx(metrics(of)["speedup_eq4"])
    assert found["factor_rest"] < 1


def test_without_recorded_overhead_nothing_is_left_to_a_rest(measured):
    assert "factor_rest" not in metrics(measured[1])


@pytest.fixture
def untimed(base, formula_engine):
    """Seconds are left in, so that a figure made of them would be found."""
    layout = LayoutSpec(ep_size=2)
    points = expand(base(cpu_fixes=True, layout=layout), {"gamma": [4], "batch_size": [8]})
    (group,) = groups(points, finished=())
    return measure_group(formula_engine(), group, LoadLimit())


def test_an_untimed_point_has_its_counts_and_nothing_made_of_seconds(untimed, measured):
    counts = {"verified_tokens": 96, "engine_starts": 1, "scheduled_sequences": 60}
    counts |= {"scheduled_steps": 8, "experts_seen": (240,), "layer_forwards": 8}
    found = metrics(with_repeats(untimed[1], counts, counts))
    timed = metrics(with_repeats(measured[1], counts, counts))
    names = """mean_context prompt_tokens_mean scheduled_batch verified_tokens_per_sequence
        engine_starts acceptance_length sigma draft_acceptance_rate alpha acceptance_position_1
        acceptance_position_2 acceptance_position_3 acceptance_position_4 activated_experts
        baseline_activated_experts expected_activated_experts activated_over_expected gate_tokens
        activated_experts_layer_00"""
    assert set(found) == set(names.split())
    assert found == {name: timed[name] for name in found}


def test_untimed_points_without_any_seconds_are_no_division_by_zero(untimed):
    seconds = ("seconds", "target_s", "draft_s", "reject_s", "median_target_s", "median_draft_s")
    nothing = dict.fromkeys(seconds, 0.0)
    baseline, sd = [metrics(with_repeats(m, nothing, nothing)) for m in untimed]
    assert sd["acceptance_length"] == pytest.approx(3.0)
    assert "speedup" not in baseline
