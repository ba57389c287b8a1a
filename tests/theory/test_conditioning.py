"""Measurements and a fitted model together: each speaks where the other does not."""

from __future__ import annotations

import numpy as np
import pytest

from moesd_dist.theory.acceptance_profile import AcceptanceProfile
from moesd_dist.theory.choices.conditioning import Observed, estimate, measured_only
from moesd_dist.theory.steps.fit import StepFit, fit_steps
from moesd_dist.theory.steps.model import Grid
from moesd_dist.theory.steps.prediction import predict
from moesd_dist.theory.steps.prediction_errors import Place
from tests.theory.known_steps import ALPHA, CONTEXT, DRAFT, TARGET, measured

PROFILE = AcceptanceProfile(conditional=(ALPHA,) * 5, tried=(10_000,) * 5)
PLACE = Place(top_k=8, context_tokens=CONTEXT)
SIZES, GAMMAS = (1, 4, 6, 8, 64), (0, 1, 3, 5)


@pytest.fixture(scope="module")
def fit() -> StepFit:
    return fit_steps(measured(scatter=0.02), target=TARGET, draft=DRAFT)


def seen(batch_size: int, gamma: int, log_speedup: float, noise: float = 0.001) -> Observed:
    return Observed(
        batch_size=np.array([float(batch_size)]),
        gamma=np.array([float(gamma)]),
        log_speedup=np.array([log_speedup]),
        noise=np.array([[noise**2]]),
    )


def test_without_measurements_it_is_the_prediction(fit):
    found = estimate(fit, PROFILE, SIZES, GAMMAS, PLACE)
    for column, gamma in enumerate(GAMMAS[1:], 1):
        grid = Grid(batch_size=np.array(SIZES), gamma=gamma, top_k=8, context_tokens=CONTEXT)
        alone = predict(
            fit, grid, sigma=PROFILE.sigma(gamma), sigma_variance=PROFILE.sigma_variance(gamma)
        )
        spread = np.sqrt(found.covariance[:, column, column])
        assert np.exp(found.log_speedup[:, column]) == pytest.approx(alone.speedup)
        # Between what is known of the mean and one more measurement: misfits of a step and of its
        # round go together.
        assert np.all((alone.spread < spread) & (spread < alone.spread_of_one * 1.01))


def test_plain_decoding_is_exact(fit):
    found = estimate(fit, PROFILE, SIZES, GAMMAS, PLACE, seen(4, 3, 0.5))
    assert found.log_speedup[:, 0] == pytest.approx(np.zeros(len(SIZES)), abs=1e-12)
    assert np.abs(found.covariance[:, 0, :]).max() < 1e-12


def test_the_difference_of_two_gammas_is_known_better_than_either(fit):
    covariance = estimate(fit, PROFILE, SIZES, GAMMAS, PLACE).covariance
    difference = covariance[:, 2, 2] + covariance[:, 3, 3] - 2 * covariance[:, 2, 3]
    assert np.all(difference < covariance[:, 2, 2])


def test_a_sure_measurement_moves_its_point_and_less_its_neighbours(fit):
    before = estimate(fit, PROFILE, SIZES, GAMMAS, PLACE)
    log = before.log_speedup[1, 2] + 0.1
    after = estimate(fit, PROFILE, SIZES, GAMMAS, PLACE, seen(4, 3, log))
    moved = (after.log_speedup - before.log_speedup)[:, 2]
    assert moved[1] == pytest.approx(0.1, rel=0.02)
    assert moved[1] > moved[2] > moved[3] > moved[4] > 0
    assert after.covariance[1, 2, 2] < 1e-5
    assert np.all(after.covariance[:, 2, 2] <= before.covariance[:, 2, 2])


def test_a_vague_measurement_hardly_moves_anything(fit):
    before = estimate(fit, PROFILE, SIZES, GAMMAS, PLACE)
    log = before.log_speedup[1, 2] + 0.1
    after = estimate(fit, PROFILE, SIZES, GAMMAS, PLACE, seen(4, 3, log, noise=1.0))
    assert np.abs(after.log_speedup - before.log_speedup).max() < 0.001


def test_few_rounds_of_acceptance_leave_longer_drafts_less_sure(fit):
    few = AcceptanceProfile(
        conditional=PROFILE.conditional, tried=(50, 40, 30, 20, 20), dispersion=2.0
    )
    wide = estimate(fit, few, SIZES, GAMMAS, PLACE).covariance
    narrow = estimate(fit, PROFILE, SIZES, GAMMAS, PLACE).covariance
    gained = np.diagonal(wide - narrow, axis1=1, axis2=2)
    expected = [few.sigma_variance(g) / few.sigma(g) ** 2 for g in GAMMAS]
    assert gained[0] == pytest.approx(expected, rel=0.05, abs=1e-5)


def test_measurements_alone_stay_at_their_batch_sizes():
    data = Observed(
        batch_size=np.array([4.0, 4.0, 16.0]),
        gamma=np.array([1.0, 3.0, 1.0]),
        log_speedup=np.array([0.2, 0.3, 0.1]),
        noise=np.array([[4e-4, 2e-4, 0], [2e-4, 9e-4, 0], [0, 0, 1e-4]]),
    )
    found = measured_only(data)
    assert (found.batch_sizes, found.gammas) == ((4, 16), (0, 1, 3))
    assert found.log_speedup == pytest.approx(np.array([[0, 0.2, 0.3], [0, 0.1, np.nan]]), nan_ok=True)  # fmt: skip
    assert found.covariance[0, 1:, 1:] == pytest.approx(data.noise[:2, :2], rel=1e-3)


def test_a_point_measured_twice_counts_by_both():
    data = Observed(
        batch_size=np.array([4.0, 4.0]),
        gamma=np.array([1.0, 1.0]),
        log_speedup=np.array([0.2, 0.5]),
        noise=np.diag([1e-4, 2e-4]),
    )
    found = measured_only(data)
    assert found.log_speedup[0, 1] == pytest.approx(0.3)
    assert found.covariance[0, 1, 1] == pytest.approx(2e-4 / 3, rel=1e-3)
