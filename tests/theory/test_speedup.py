"""Eq. 4 and its factors: limits, simulated rounds, and a product that is the speedup itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from moesd_dist.theory import acceptance
from moesd_dist.theory.speedup import RoundTimes, decompose, speedup, target_efficiency

TIMES = RoundTimes(target_decode_s=0.020, target_verify_s=0.025, draft_step_s=0.002, reject_s=0.001)
FREE = RoundTimes(target_decode_s=0.020, target_verify_s=0.020)


@pytest.mark.parametrize(
    ("sigma", "gamma", "times", "expected"),
    [
        pytest.param(1.0, 4, FREE, 5.0, id="all accepted and nothing costs extra"),
        pytest.param(0.2, 4, FREE, 1.0, id="nothing accepted and nothing costs extra"),
        pytest.param(1.0, 0, FREE, 1.0, id="nothing drafted is the baseline"),
        pytest.param(
            1.0,
            4,
            replace(FREE, target_verify_s=0.1),
            1.0,
            id="verifying five tokens costs five decoding steps",
        ),
        pytest.param(
            1.0, 4, replace(FREE, draft_step_s=0.02), 1.0, id="the draft is as slow as the target"
        ),
        pytest.param(0.672, 4, TIMES, 0.672 * 5 * 0.020 / 0.034, id="gamma draft steps a round"),
    ],
)
def test_speedup_is_tokens_over_the_rounds_cost(
    sigma: float, gamma: int, times: RoundTimes, expected: float
) -> None:
    assert speedup(sigma, gamma, times) == pytest.approx(expected, rel=1e-12)


def test_speedup_is_the_papers_sum_of_ratios() -> None:
    draft, verify, reject = (
        getattr(TIMES, name) / TIMES.target_decode_s
        for name in ("draft_step_s", "target_verify_s", "reject_s")
    )
    expected = 0.7 * (3 + 1) / (3 * draft + verify + reject)
    assert speedup(0.7, 3, TIMES) == pytest.approx(expected, rel=1e-12)


def test_speedup_exceeds_the_bound_that_line_11_of_algorithm_1_would_set() -> None:
    assert speedup(0.9, 4, replace(FREE, draft_step_s=0.0002)) > 0.9 * 5 / 2


def test_only_the_ratios_of_the_times_matter() -> None:
    names = ("target_decode_s", "target_verify_s", "draft_step_s", "reject_s")
    milliseconds = RoundTimes(**{name: 1000 * getattr(TIMES, name) for name in names})
    assert speedup(0.7, 4, milliseconds) == pytest.approx(speedup(0.7, 4, TIMES), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "sign"),
    [("target_decode_s", 1), ("target_verify_s", -1), ("draft_step_s", -1), ("reject_s", -1)],
)
def test_speedup_moves_the_right_way_with_each_time(name: str, sign: int) -> None:
    slower = [replace(TIMES, **{name: seconds}) for seconds in (0.01, 0.02, 0.04)]
    assert (sign * np.diff([speedup(0.7, 4, times) for times in slower]) > 0).all()


def test_speedup_rises_with_sigma() -> None:
    assert (np.diff([speedup(sigma, 4, TIMES) for sigma in (0.2, 0.5, 0.9, 1.0)]) > 0).all()


def test_simulated_decoding_takes_as_long() -> None:
    rng = np.random.default_rng(3)
    accepted = np.cumprod(rng.random((100_000, 4)) < 0.8, axis=1).sum(axis=1)
    tokens, rounds = (1 + accepted).sum(), len(accepted)
    round_s = sum([TIMES.draft_step_s] * 4) + TIMES.target_verify_s + TIMES.reject_s
    simulated = tokens * TIMES.target_decode_s / (rounds * round_s)
    assert speedup(acceptance.sigma(0.8, 4), 4, TIMES) == pytest.approx(simulated, rel=0.01)


@pytest.mark.parametrize("gamma", [0, 1, 2, 4, 16])
@pytest.mark.parametrize(
    "times",
    [
        pytest.param(TIMES, id="everything costs"),
        pytest.param(FREE, id="nothing costs extra"),
        pytest.param(replace(TIMES, draft_step_s=0.0), id="n-gram drafts are free"),
        pytest.param(replace(TIMES, target_verify_s=0.018), id="noise: verifying looks cheaper"),
        pytest.param(replace(TIMES, reject_s=9.0), id="rejection is all there is"),
    ],
)
def test_the_factors_multiply_to_the_speedup_and_the_shares_add_to_one(
    gamma: int, times: RoundTimes
) -> None:
    sigma = acceptance.sigma(0.8, gamma)
    parts = decompose(sigma, gamma, times)
    assert parts.speedup == pytest.approx(speedup(sigma, gamma, times), rel=1e-14)
    shares = parts.verify_share + parts.draft_share + parts.reject_share
    assert shares == pytest.approx(1.0, rel=1e-14)


def test_each_factor_names_its_own_cause() -> None:
    parts = decompose(0.672, 4, TIMES)
    assert (parts.ideal, parts.acceptance) == (5.0, 0.672)
    assert parts.target_efficiency == pytest.approx(0.020 / 0.025)
    assert parts.drafting == pytest.approx(0.025 / 0.033)
    assert parts.rejection == pytest.approx(0.033 / 0.034)
    shares = (parts.verify_share, parts.draft_share, parts.reject_share)
    assert shares == pytest.approx((25 / 34, 8 / 34, 1 / 34))


@pytest.mark.parametrize(
    ("times", "unit_factors"),
    [
        pytest.param(FREE, ("target_efficiency", "drafting", "rejection"), id="nothing costs"),
        pytest.param(replace(TIMES, draft_step_s=0.0), ("drafting",), id="drafts are free"),
        pytest.param(replace(TIMES, reject_s=0.0), ("rejection",), id="rejection is free"),
    ],
)
def test_a_cause_that_costs_nothing_has_the_factor_one(
    times: RoundTimes, unit_factors: tuple[str, ...]
) -> None:
    parts = decompose(0.7, 4, times)
    factors = ("acceptance", "target_efficiency", "drafting", "rejection")
    assert tuple(name for name in factors if getattr(parts, name) == 1.0) == unit_factors


def test_target_efficiency_is_decoding_over_verifying() -> None:
    assert target_efficiency(0.02, 0.02) == 1.0
    assert target_efficiency(0.02, 0.08) == pytest.approx(0.25)


@pytest.mark.parametrize("call", [speedup, decompose])
@pytest.mark.parametrize(
    ("sigma", "gamma", "message"),
    [
        pytest.param(1.1, 4, r"got 1\.1 at gamma 4", id="sigma above one"),
        pytest.param(0.1, 4, r"got 0\.1 at gamma 4", id="sigma below the bonus token"),
        pytest.param(3.36, 4, "use acceptance_length / ", id="an acceptance length for sigma"),
        pytest.param(1.0, -1, "gamma must be at least 0, got -1", id="gamma negative"),
    ],
)
def test_what_no_round_can_yield_is_refused(
    call: Callable[[float, int, RoundTimes], object], sigma: float, gamma: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(sigma, gamma, TIMES)


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("target_decode_s", 0.0),
        ("target_decode_s", math.inf),
        ("target_verify_s", -1.0),
        ("target_verify_s", math.nan),
        ("draft_step_s", -0.1),
        ("reject_s", math.nan),
    ],
)
def test_times_that_cannot_be_measured_are_refused_by_name(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be .* got {seconds}; "):
        replace(TIMES, **{name: seconds})


def test_target_efficiency_refuses_a_forward_without_time() -> None:
    with pytest.raises(ValueError, match=r"target_verify_s must be positive .* got 0\.0"):
        target_efficiency(0.02, 0.0)
