"""A fit to measurements made from known parameters finds the predictions and says how surely."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moesd_dist.theory.counts import NO_MODEL
from moesd_dist.theory.routing_law import UNIFORM
from moesd_dist.theory.steps.fit import StepFit, fit_steps
from moesd_dist.theory.steps.prediction import log_slopes, predict
from moesd_dist.theory.steps.saved import about, dump_fit, load_fit, load_model
from moesd_dist.theory.steps.uncertainty import bootstrap, step_identifiability
from tests.theory.known_steps import (
    DRAFT,
    EVENLY_21,
    GRID,
    MODEL,
    OTHERS,
    SIGMA,
    TARGET,
    TRUE_SPEEDUP,
    TRUTH,
    grid_at,
    measured,
)


@pytest.fixture(scope="module")
def exact() -> StepFit:
    return fit_steps(measured().take(EVENLY_21), target=TARGET, draft=DRAFT)


@pytest.fixture(scope="module")
def noisy() -> StepFit:
    data = measured(seed=1, scatter=0.02, drift=0.05).take(EVENLY_21)
    return fit_steps(data, target=TARGET, draft=DRAFT)


def test_21_exact_points_predict_the_other_59_within_half_a_percent(exact: StepFit) -> None:
    found = predict(exact, grid_at(OTHERS), sigma=SIGMA[OTHERS])
    assert np.abs(found.speedup / TRUE_SPEEDUP[OTHERS] - 1).max() < 0.005


@pytest.mark.parametrize("name", ["target_decode_s", "target_verify_s", "draft_step_s", "reject_s"])
def test_so_are_the_seconds_of_every_part(exact: StepFit, name: str) -> None:
    found = getattr(exact.model.round_seconds(GRID), name)
    assert np.abs(found / getattr(TRUTH, name) - 1).max() < 0.01


def test_intervals_cover_the_truth_in_at_least_nine_of_ten_of_200_noisy_draws() -> None:
    covered = []
    for seed in range(200):
        data = measured(seed=seed, scatter=0.02, drift=0.05).take(EVENLY_21)
        fit = fit_steps(data, target=TARGET, draft=DRAFT)
        found = predict(fit, grid_at(OTHERS), sigma=SIGMA[OTHERS])
        truth = TRUE_SPEEDUP[OTHERS]
        covered.append((found.low <= truth) & (truth <= found.high))
    share = np.array(covered)
    assert share.mean() >= 0.9
    assert share.mean(axis=0).min() >= 0.8  # nor is any one point let down


def test_intervals_are_narrow_enough_to_say_something(noisy: StepFit) -> None:
    found = predict(noisy, grid_at(OTHERS), sigma=SIGMA[OTHERS])
    assert np.median(found.high / found.low) < 1.1
    assert (found.low_of_one <= found.low).all()
    assert (found.high_of_one >= found.high).all()


def test_uncounted_acceptance_widens_the_interval(noisy: StepFit) -> None:
    narrow = predict(noisy, GRID, sigma=SIGMA)
    wide = predict(noisy, GRID, sigma=SIGMA, sigma_variance=0.05**2)
    assert (wide.high / wide.low > narrow.high / narrow.low).all()
    np.testing.assert_allclose(wide.speedup, narrow.speedup)


def test_the_drift_of_the_machine_is_told_from_the_scatter() -> None:
    draws = [measured(seed=seed, scatter=0.02, drift=0.05) for seed in range(5)]
    found = [fit_steps(data, target=TARGET, draft=DRAFT).parts["target"] for data in draws]
    # The counted experts scatter by 2 % themselves, which adds to that of the seconds.
    assert 0.02 < np.mean([part.scatter for part in found]) < 0.02 * 2**0.5
    assert np.mean([part.drift for part in found]) == pytest.approx(0.05, rel=0.3)


def test_without_drift_none_is_found() -> None:
    found = fit_steps(measured(scatter=0.02), target=TARGET, draft=DRAFT).parts["target"]
    assert found.drift < 0.01


def test_a_group_that_ran_slow_does_not_bend_the_prediction() -> None:
    data = measured()
    slow = np.where(data.group == data.group[5], 1.3, 1.0)  # batch 16 of top_k 4
    held = replace(
        data,
        target_decode_s=data.target_decode_s * slow,
        target_verify_s=data.target_verify_s * slow,
    )
    fit = fit_steps(held, target=TARGET, draft=DRAFT)
    found = predict(fit, GRID, sigma=SIGMA)
    assert np.abs(found.speedup / TRUE_SPEEDUP - 1).max() < 0.02


def test_slopes_are_those_of_the_predicted_logarithm(exact: StepFit) -> None:
    part, index, step = "target", 0, 1e-3
    offsets = {name: p.offsets.copy() for name, p in exact.parts.items()}
    base = exact.model_at(offsets).round_seconds(GRID)
    offsets[part][index] += step
    moved = exact.model_at(offsets).round_seconds(GRID)
    rise = np.log(moved.step_s / moved.round_s) - np.log(base.step_s / base.round_s)
    np.testing.assert_allclose(log_slopes(exact, GRID)[part][:, index], rise / step, atol=2e-3)


def test_a_dense_target_needs_no_routing() -> None:
    dense = replace(TARGET, num_moe_layers=0, num_experts=0, top_k=0, expert_params=0)
    none = np.zeros(80)
    data = replace(measured(), decode_experts=none, verify_experts=none, top_k=none)
    fit = fit_steps(data, target=dense, draft=NO_MODEL)
    assert fit.model.routing == UNIFORM
    assert "expert_s" not in fit.parts["target"].values
    assert np.isfinite(predict(fit, replace(GRID, top_k=0.0), sigma=SIGMA).speedup).all()


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        pytest.param([0, 1, 2], "at least 4 points, got 3", id="too few"),
        pytest.param([3, 13, 23, 33], "got only 8", id="one batch size"),
    ],
)
def test_too_little_is_refused(indices: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_steps(measured().take(indices), target=TARGET, draft=DRAFT)


def test_what_the_data_cannot_separate_is_named() -> None:
    # Every expert is as large as every other, so a second more of reading one or of waiting for it
    # look alike: only the sum is known.
    fit = fit_steps(measured(scatter=0.02), target=TARGET, draft=DRAFT)
    found = step_identifiability(fit)["target"]
    assert "expert_s" in found.from_prior
    assert found.learned["sequence_s"] > 0.9
    assert found.seen_directions < 8


def test_bootstrap_and_jacobian_agree_where_the_data_speak() -> None:
    data = measured(seed=3, scatter=0.02, drift=0.05)
    fit = fit_steps(data, target=TARGET, draft=DRAFT)
    drawn = bootstrap(data, target=TARGET, draft=DRAFT, draws=40)
    for part, name in (("target", "expert_flops"), ("routing", "popularity")):
        low, high = drawn[part][name]
        other_low, other_high = fit.parts[part].interval(name)
        assert low < other_high
        assert other_low < high
        assert 0.2 < np.log(high / low) / np.log(other_high / other_low) < 5


def test_the_same_seed_draws_the_same_bootstrap() -> None:
    data = measured(seed=3, scatter=0.02).take(EVENLY_21)
    first, second = (bootstrap(data, target=TARGET, draft=DRAFT, draws=20) for _ in range(2))
    assert first == second
    with pytest.raises(ValueError, match="at least 20 draws, got 3"):
        bootstrap(data, target=TARGET, draft=DRAFT, draws=3)


def test_a_saved_fit_predicts_the_same(noisy: StepFit) -> None:
    text = dump_fit(noisy, host="somewhere", sweeps=["a"])
    before, after = (predict(f, GRID, sigma=SIGMA) for f in (noisy, load_fit(text)))
    np.testing.assert_array_equal(before.speedup, after.speedup)
    np.testing.assert_array_equal(before.spread_of_one, after.spread_of_one)
    assert load_model(text) == noisy.model
    assert about(text) == {"host": "somewhere", "sweeps": ["a"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("hello", "a saved fit is JSON", id="not JSON"),
        pytest.param("[1]", "says format", id="other JSON"),
        pytest.param(
            '{"format": "moesd-step-fit", "version": 99}', "version 1, got 99", id="later"
        ),
        pytest.param(
            '{"format": "moesd-step-fit", "version": 1, "about": {}}', "is damaged", id="cut short"
        ),
    ],
)
def test_a_file_that_is_no_fit_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_fit(text)


def _damage(change: Callable[[dict[str, Any]], object], fit: StepFit) -> str:
    content = json.loads(dump_fit(fit))
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda c: c.update(about=5), "about holds names", id="about"),
        pytest.param(lambda c: c.update(parts=[]), "is damaged", id="parts"),
        pytest.param(lambda c: c["parts"].pop("target"), "is damaged.*target", id="no target"),
        pytest.param(
            lambda c: c["parts"]["draft"]["offsets"].pop(), "offsets has shape", id="offsets"
        ),
        pytest.param(
            lambda c: c["parts"]["reject"]["covariance"].pop(), "covariance has shape", id="matrix"
        ),
    ],
)
def test_a_damaged_fit_is_refused(
    noisy: StepFit, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_fit(_damage(change, noisy))


def test_moved_to_faster_memory_the_decode_step_shrinks_and_overheads_stay() -> None:
    moved = MODEL.moved(memory=1e6, compute=1e6).round_seconds(GRID)
    rates = MODEL.target_rates
    batch = GRID.arrays()[0]
    left = rates.forward_s + batch * (rates.token_s + rates.sequence_s)
    left += 4 * rates.expert_s * TRUTH.decode_experts
    np.testing.assert_allclose(moved.target_decode_s, left, rtol=1e-3)
