"""MoESD's model on the points that ours is fitted to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moesd_dist.theory.counts import NO_MODEL
from moesd_dist.theory.devices.device import DeviceFigures
from moesd_dist.theory.moesd.forward_time import Denominator, predicted_speedup
from moesd_dist.theory.moesd.from_steps import MoesdModel
from moesd_dist.theory.moesd.points import Verified, as_floats
from moesd_dist.theory.moesd.scaling import NAMES
from moesd_dist.theory.steps.settings import expected_at
from tests.theory.known_steps import DRAFT, EVENLY_21, TARGET, measured

FIGURES = DeviceFigures(
    flops=5e11,
    bytes_per_s=4e10,
    memory_bytes=2.4e10,
    clock_hz=2.6e9,
    link_bytes_per_s=1e12,
    link_latency_s=1e-6,
)
MODEL = MoesdModel(target=TARGET, draft=DRAFT, figures=FIGURES, multistart=2)
DATA = measured(seed=2, scatter=0.01)


def test_points_carry_over_in_their_order() -> None:
    points = MODEL.observations(DATA)
    for name in ("batch_size", "gamma", "top_k", "sigma", "speedup"):
        assert as_floats(getattr(points, name)) == pytest.approx(getattr(DATA, name))
    assert (points.num_experts, points.ridge_point) == (64, 12.5)


def test_bounds_are_bytes_over_bandwidth_and_five_times_that() -> None:
    bounds = MODEL.bounds(2e-3)
    assert bounds.bias == pytest.approx((2 * 9_000_000 / 4e10, 5 * 2 * 9_000_000 / 4e10))
    assert bounds.k2[0] == pytest.approx(4 * 2 * 3_145_728 / 4e10)
    assert bounds.draft_bias[0] == pytest.approx(2 * 1_100_000 / 4e10)
    assert bounds.reject_bias == bounds.reject_k == (0.0, 2e-3)


def test_a_target_on_two_devices_loads_twice_as_fast_and_its_draft_does_not() -> None:
    one, two = MODEL.bounds(1e-3), replace(MODEL, tp_size=2).bounds(1e-3)
    assert two.bias[0] == pytest.approx(one.bias[0] / 2)
    assert two.draft_bias == one.draft_bias


def test_the_ridge_is_a_token_count_whatever_a_weight_takes() -> None:
    wide = replace(MODEL, target=replace(TARGET, bytes_per_value=4.0))
    assert wide.observations(DATA).ridge_point == pytest.approx(25.0)


def test_the_paper_verifies_gamma_tokens_unless_told_otherwise() -> None:
    assert MODEL.verified is Verified.GAMMA
    assert MODEL.denominator is Denominator.EQ_4


@pytest.mark.parametrize("verified", Verified)
@pytest.mark.parametrize("denominator", Denominator)
def test_fit_and_forecast_use_the_same_variant(
    verified: Verified, denominator: Denominator
) -> None:
    model = replace(MODEL, verified=verified, denominator=denominator)
    train = DATA.take(EVENLY_21)
    found = model.fit(train)
    again = predicted_speedup(
        found.parameters,
        model.points(train, train.sigma),
        verified=verified,
        denominator=denominator,
    )
    assert again - train.speedup == pytest.approx(found.residuals, abs=1e-9)


def test_a_forecast_tells_blind_and_given_acceptance_apart() -> None:
    train = DATA.take(EVENLY_21)
    settings = DATA.top_k.astype(int)
    expected = expected_at(train, settings[EVENLY_21], DATA, settings)
    worse = replace(expected, sigma=0.9 * expected.sigma)
    found = MODEL.forecast(train, DATA, worse)
    assert found.speedup == pytest.approx(0.9 * found.speedup_given_sigma)
    assert np.mean(np.abs(found.speedup_given_sigma / DATA.speedup - 1)) < 0.15
    assert found.times is found.low is None


def test_bootstrap_intervals_are_within_the_bounds() -> None:
    found = MODEL.bootstrap(DATA.take(EVENLY_21), draws=20, seed=1)
    assert tuple(found) == NAMES
    bounds = MODEL.bounds(float(DATA.reject_s.max()))
    for name, (low, high) in found.items():
        least, most = getattr(bounds, name)
        assert least * (1 - 1e-9) <= low <= high <= most * (1 + 1e-9), name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"target": replace(TARGET, num_experts=0)}, "the target has none", id="dense"),
        pytest.param({"draft": NO_MODEL}, "this one has no weights", id="n-gram lookup"),
    ],
)
def test_what_the_model_cannot_be_of_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(MODEL, **change)  # type: ignore[arg-type]


def test_fewer_points_than_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="ten parameters need at least 10 points, got 9"):
        MODEL.fit(DATA.take(np.arange(9)))
