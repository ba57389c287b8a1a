"""The fit: known parameters give their predictions back, bounds hold, nothing overflows."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from moesd_dist.theory.acceptance import sigma
from moesd_dist.theory.moesd.bounds import ParameterBounds, bounds_from
from moesd_dist.theory.moesd.curve import Curve
from moesd_dist.theory.moesd.fit import MoesdFit, fit
from moesd_dist.theory.moesd.forward_time import Denominator, MoesdParameters, predicted_speedup
from moesd_dist.theory.moesd.points import Observations, Points, Verified
from moesd_dist.theory.moesd.scaling import NAMES
from moesd_dist.theory.moesd.strides import PAPER_GRID, strided

# About Qwen2-57B-A14B with Qwen2-0.5B on two A800, the draft on one of them.
BYTES = {
    "non_ffn_bytes": 6e9,
    "expert_bytes": 55e6,
    "num_moe_layers": 28,
    "draft_bytes": 1e9,
    "bytes_per_s": 4e12,
    "draft_bytes_per_s": 2e12,
    "longest_reject_s": 2e-3,
}
BOUNDS = bounds_from(**BYTES)
TYPICAL = MoesdParameters(
    bias=3e-3,
    k1=1e-3,
    k2=6e-4,
    k3=5e-4,
    draft_bias=1e-3,
    draft_k=2e-4,
    reject_bias=3e-4,
    reject_k=1e-5,
    lam=0.5,
    s=1.01,
)
KNOWN = [
    pytest.param(TYPICAL, id="in the middle"),
    pytest.param(replace(TYPICAL, s=1.0002), id="almost flat"),
    pytest.param(replace(TYPICAL, s=1.0), id="flat: k1 and k3 are bias"),
    pytest.param(replace(TYPICAL, s=1.08, k1=1e-6, lam=0.8), id="steep"),
    pytest.param(replace(TYPICAL, lam=0.2), id="an early knee, on the bound"),
    pytest.param(replace(TYPICAL, lam=1.0, s=1.03), id="a late knee, on the bound"),
    pytest.param(replace(TYPICAL, k1=0.0, k3=0.0, draft_k=0.0), id="nothing grows"),
    pytest.param(replace(TYPICAL, reject_bias=0.0, reject_k=0.0), id="rejection is free"),
    pytest.param(
        replace(TYPICAL, bias=1.5e-3, k2=3.85e-4, draft_bias=5e-4), id="loads at peak bandwidth"
    ),
    pytest.param(replace(TYPICAL, bias=7e-3, k2=1.5e-3, draft_bias=2.4e-3), id="slow loads"),
]


def grid(*, ridge_point: float = 156.0) -> Points:
    """The paper's 228 points at an alpha of 0.85."""
    top_k, gamma, batch_size = np.array(PAPER_GRID).T
    return Points(
        batch_size=batch_size,
        gamma=gamma,
        top_k=top_k,
        sigma=[sigma(0.85, int(drafts)) for drafts in gamma],
        num_experts=64,
        ridge_point=ridge_point,
    )


def observed(points: Points, speedups: np.ndarray, chosen: np.ndarray) -> Observations:
    """Some of the points with what was measured there."""
    names = ("batch_size", "gamma", "top_k", "sigma")
    return Observations(
        **{name: np.asarray(getattr(points, name))[chosen] for name in names},
        num_experts=points.num_experts,
        ridge_point=points.ridge_point,
        speedup=speedups[chosen],
    )


GRID = grid()
SUBSET = strided(GRID, stride=11)


def measured(parameters: MoesdParameters = TYPICAL, **toggles: Any) -> Observations:
    """The 21 points of the paper, without noise."""
    return observed(GRID, predicted_speedup(parameters, GRID, **toggles), SUBSET)


def worst_error(found: MoesdFit, truth: MoesdParameters, points: Points, **toggles: Any) -> float:
    """The largest relative error of a predicted speedup over all points."""
    predicted = predicted_speedup(found.parameters, points, **toggles)
    return float(np.max(np.abs(predicted / predicted_speedup(truth, points, **toggles) - 1.0)))


@pytest.mark.parametrize("truth", KNOWN)
def test_21_points_without_noise_give_all_228_predictions_back(truth: MoesdParameters) -> None:
    found = fit(measured(truth), BOUNDS)
    assert worst_error(found, truth, GRID) < 0.005
    assert BOUNDS.outside(found.parameters) == ()


@pytest.mark.parametrize("verified", Verified)
@pytest.mark.parametrize("denominator", Denominator)
def test_a_fit_with_toggles_recovers_data_made_with_them(
    verified: Verified, denominator: Denominator
) -> None:
    toggles = {"verified": verified, "denominator": denominator}
    found = fit(measured(**toggles), BOUNDS, **toggles)
    assert worst_error(found, TYPICAL, GRID, **toggles) < 0.005


def test_line_11_cannot_be_fitted_to_what_eq_4_made() -> None:
    best_case = replace(TYPICAL, k1=0.0, k3=0.0, draft_bias=5e-4, reject_bias=0.0, reject_k=0.0)
    printed = fit(measured(best_case), BOUNDS, denominator=Denominator.LINE_11)
    assert printed.mse > 1000 * fit(measured(best_case), BOUNDS).mse
    assert math.sqrt(printed.mse) > 0.05


def test_the_parameters_themselves_are_not_recovered_and_the_fit_says_so() -> None:
    found = fit(measured(), BOUNDS)
    assert found.parameters.bias != pytest.approx(TYPICAL.bias, rel=0.01)
    assert found.identifiable.seen_directions < len(NAMES)
    assert found.identifiable.singular_values[-1] < 1e-12  # one scale of all times
    assert {"bias", "k1"} <= set(found.identifiable.inseparable)


def test_a_common_time_scale_changes_no_fitted_speedup() -> None:
    slower = bounds_from(**{**BYTES, "bytes_per_s": 2e12, "draft_bytes_per_s": 1e12})
    found = fit(measured(), slower)
    assert worst_error(found, TYPICAL, GRID) < 0.005
    assert found.parameters.k2 >= slower.k2[0] * (1 - 1e-9)


def noisy_fits(bounds: ParameterBounds, scale: float) -> tuple[np.ndarray, float]:
    """Relative errors of 12 fits to noisy points [fits, 228], and the sum of their costs."""
    truth, random = predicted_speedup(TYPICAL, GRID), np.random.default_rng(1)
    fits = [
        fit(observed(GRID, truth * np.exp(scale * noise), SUBSET), bounds)
        for noise in random.standard_normal((12, truth.size))
    ]
    errors = [predicted_speedup(found.parameters, GRID) / truth - 1.0 for found in fits]
    return np.array(errors), sum(found.cost for found in fits)


@pytest.mark.parametrize("scale", [0.01, 0.02, 0.05])
def test_most_predictions_are_closer_than_one_noisy_measurement(scale: float) -> None:
    errors, _ = noisy_fits(BOUNDS, scale)
    assert np.median(np.abs(errors)) < 0.5 * scale


@pytest.mark.parametrize("scale", [0.01, 0.02, 0.05])
def test_a_gentle_growth_explains_as_much_and_goes_less_wrong(scale: float) -> None:
    wide, cost = noisy_fits(BOUNDS, scale)
    gentle, gentle_cost = noisy_fits(replace(BOUNDS, s=(1.0, 1.05)), scale)
    assert np.sqrt(np.mean(gentle**2)) < scale
    assert np.abs(gentle).max() < np.abs(wide).max()
    assert gentle_cost < 1.05 * cost


def test_bounds_hold_where_the_data_pull_beyond_them() -> None:
    faster = replace(TYPICAL, draft_bias=1e-9, draft_k=0.0, reject_bias=0.0, reject_k=0.0)
    found = fit(measured(faster), replace(BOUNDS, lam=(0.9, 1.0)))
    assert replace(BOUNDS, lam=(0.9, 1.0)).outside(found.parameters) == ()
    assert "draft_bias" in found.identifiable.at_limit


def test_a_parameter_with_one_allowed_value_keeps_it() -> None:
    still = replace(BOUNDS, reject_bias=(0.0, 0.0), reject_k=(0.0, 0.0), lam=(0.5, 0.5))
    found = fit(measured(replace(TYPICAL, reject_bias=0.0, reject_k=0.0)), still)
    assert (found.parameters.reject_bias, found.parameters.reject_k) == (0.0, 0.0)
    assert found.parameters.lam == 0.5
    assert worst_error(found, TYPICAL, GRID) > 0  # the truth here is another one
    assert math.sqrt(found.mse) < 1e-3


@pytest.mark.parametrize("seed", [0, 1])
def test_where_growth_would_overflow_nothing_warns_and_bounds_hold(seed: int) -> None:
    wide = grid(ridge_point=5000.0)
    top = observed(wide, predicted_speedup(TYPICAL, wide), SUBSET)
    huge = replace_points(top, batch_size=50 * np.asarray(top.batch_size))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit(huge, replace(BOUNDS, lam=(0.9, 1.0)), seed=seed)
        assert np.all(np.isfinite(predicted_speedup(found.parameters, huge)))
    assert found.residuals == pytest.approx(
        predicted_speedup(found.parameters, huge) - np.asarray(huge.speedup), abs=1e-9
    )


def replace_points(points: Observations, **changes: Any) -> Observations:
    names = ("batch_size", "gamma", "top_k", "sigma", "num_experts", "ridge_point", "speedup")
    return Observations(**{name: getattr(points, name) for name in names} | changes)


def test_the_same_seed_gives_the_same_fit() -> None:
    noisy = replace_points(measured(), speedup=np.linspace(1.0, 2.0, SUBSET.size))
    first, second = (fit(noisy, BOUNDS, seed=7) for _ in range(2))
    assert first.parameters == second.parameters
    assert first.evaluations == second.evaluations


def test_a_start_at_the_truth_is_done_at_once() -> None:
    found = fit(measured(), BOUNDS, start=TYPICAL)
    assert found.evaluations < 20
    assert found.cost < 1e-20


def test_a_start_outside_the_bounds_is_moved_inside() -> None:
    found = fit(measured(), BOUNDS, start=replace(TYPICAL, bias=1.0, lam=5.0))
    assert BOUNDS.contain(found.parameters)
    assert worst_error(found, TYPICAL, GRID) < 0.005


def test_more_starts_never_fit_worse() -> None:
    noisy = replace_points(measured(), speedup=np.linspace(1.0, 2.0, SUBSET.size))
    one, two, four = (fit(noisy, BOUNDS, multistart=starts).cost for starts in (1, 2, 4))
    alike = 1.01  # of two searches that close, the gentler growth is taken
    assert two <= alike * one
    assert four <= alike * two


def test_cost_sum_and_mean_are_of_the_same_residuals() -> None:
    noisy = replace_points(measured(), speedup=np.linspace(1.0, 2.0, SUBSET.size))
    found = fit(noisy, BOUNDS)
    predicted = predicted_speedup(found.parameters, noisy)
    squares = np.sum((predicted - np.asarray(noisy.speedup)) ** 2)
    assert found.sum_of_squares == pytest.approx(squares, rel=1e-9)
    assert found.cost == pytest.approx(squares / 2, rel=1e-9)
    assert found.mse == pytest.approx(squares / 21, rel=1e-9)


@pytest.mark.parametrize("verified", Verified)
@pytest.mark.parametrize("denominator", Denominator)
@pytest.mark.parametrize("truth", KNOWN)
def test_the_curve_of_the_fit_is_the_model_with_its_exact_slopes(
    truth: MoesdParameters, verified: Verified, denominator: Denominator
) -> None:
    curve = Curve(GRID, BOUNDS, verified=verified, denominator=denominator)
    variables = curve.scaling.variables(truth)
    expected = predicted_speedup(truth, GRID, verified=verified, denominator=denominator)
    assert curve.speedups(variables) == pytest.approx(expected, rel=1e-12)
    moved = np.clip(variables, 1e-3, None)  # off s = 1 and 0, where a step down would leave
    numeric = approx_fprime(moved, curve.speedups, 1e-7)
    assert curve.slopes(moved) == pytest.approx(numeric, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("truth", KNOWN)
def test_scaled_variables_and_parameters_are_each_others_inverse(truth: MoesdParameters) -> None:
    scaling = Curve(GRID, BOUNDS).scaling
    back = scaling.parameters(scaling.variables(truth))
    assert [getattr(back, name) for name in NAMES] == pytest.approx(
        [getattr(truth, name) for name in NAMES], rel=1e-12
    )


def test_limits_are_bytes_over_bandwidth_and_five_times_that() -> None:
    assert BOUNDS.bias == pytest.approx((1.5e-3, 7.5e-3))
    assert BOUNDS.draft_bias == pytest.approx((0.5e-3, 2.5e-3))
    assert BOUNDS.reject_bias == BOUNDS.reject_k == (0.0, 2e-3)
    assert (BOUNDS.k1, BOUNDS.lam, BOUNDS.s) == ((0.0, math.inf), (0.2, 1.0), (1.0, 2.0))


def test_k2_times_all_experts_loads_every_routed_expert_of_all_layers() -> None:
    assert 64 * BOUNDS.k2[0] == pytest.approx(64 * 28 * 55e6 / 4e12)


def test_a_draft_runs_on_the_targets_devices_unless_told() -> None:
    shared = bounds_from(**{**BYTES, "draft_bytes_per_s": None})
    assert shared.draft_bias == pytest.approx((1e9 / 4e12, 5e9 / 4e12))


def test_parameters_outside_their_limits_are_named() -> None:
    assert BOUNDS.outside(replace(TYPICAL, bias=1.0, s=3.0)) == ("bias", "s")
    assert not BOUNDS.contain(replace(TYPICAL, lam=0.1))


@pytest.mark.parametrize(
    ("chosen", "options", "message"),
    [
        pytest.param(
            np.arange(9), {}, "ten parameters need at least 10 points, got 9", id="too few"
        ),
        pytest.param(
            np.arange(0, 228, 19), {}, "several batch sizes, got only 1;", id="one batch size"
        ),
        pytest.param(
            SUBSET, {"multistart": 0}, "multistart must be at least 1, got 0", id="no search"
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    chosen: np.ndarray, options: dict[str, Any], message: str
) -> None:
    few = observed(GRID, predicted_speedup(TYPICAL, GRID), chosen)
    with pytest.raises(ValueError, match=message):
        fit(few, BOUNDS, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"lam": (1.0, 0.2)}, "limits of lam must be 0 <= least <= most"),
        pytest.param({"bias": (0.0, 1.0)}, "the lower limit of bias must be positive"),
        pytest.param({"s": (0.5, 2.0)}, "s is at least 1, got a lower limit of 0.5"),
    ],
)
def test_impossible_bounds_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(BOUNDS, **changes)


@pytest.mark.parametrize("name", ["k1", "k3", "draft_k"])
def test_a_fit_refuses_limits_that_its_variables_cannot_keep(name: str) -> None:
    limited: ParameterBounds = replace(BOUNDS, **{name: (0.0, 1.0)})
    with pytest.raises(ValueError, match=f"{name} can only be limited to 0 or more"):
        fit(measured(), limited)


@pytest.mark.parametrize("name", ["non_ffn_bytes", "draft_bytes", "bytes_per_s"])
def test_a_model_without_bytes_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be positive and finite, got 0"):
        bounds_from(**{**BYTES, name: 0.0})


def test_a_fit_of_21_points_prints_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    noisy = replace_points(measured(), speedup=np.linspace(1.0, 2.0, SUBSET.size))
    began = time.perf_counter()
    found = fit(noisy, BOUNDS)
    spent = time.perf_counter() - began
    with capsys.disabled():
        print(f"\n21 points, {found.evaluations} evaluations: {spent:.3f} s (bar: 0.2 s)")
    assert found.evaluations <= 3 * 2 * 100  # what the time is made of, on any machine
