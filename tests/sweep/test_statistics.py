"""Intervals and figures of a measurement."""

from __future__ import annotations

import math
import random

import pytest

from moesd_dist.sweep.grid import expand
from moesd_dist.sweep.pairing import LoadLimit, groups, measure_group
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
