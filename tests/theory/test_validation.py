"""Errors of held-out points: which are held out, what is seen of them, and known answers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from moesd_dist.theory.steps.data import StepData
from moesd_dist.theory.steps.law import Forwards
from moesd_dist.theory.steps.settings import Expected, acceptance_profile, expected_at
from moesd_dist.theory.validation.forecast import Forecast, step_forecaster
from moesd_dist.theory.validation.regimes import Regime, regimes, residuals_by_regime
from moesd_dist.theory.validation.regret import regret_of, regrets
from moesd_dist.theory.validation.scores import (
    HeldOut,
    cross_validate,
    errors,
    noise_floor,
    score,
    scores,
    unseen_baselines,
)
from moesd_dist.theory.validation.splits import (
    Kind,
    Split,
    all_splits,
    largest_batches,
    strided_split,
)
from tests.theory.known_steps import ALPHA, DRAFT, EVENLY_21, MODEL, TARGET, measured

DATA = measured(seed=3, scatter=0.02, drift=0.03)
SPLITS = all_splits(DATA, seed=0)
SETTINGS = DATA.top_k.astype(int)
OURS = step_forecaster(TARGET, DRAFT)


def of_kind(kind: Kind) -> list[Split]:
    return [split for split in SPLITS if split.kind is kind]


@pytest.mark.parametrize("split", SPLITS, ids=lambda s: f"{s.kind.value}, {s.name}")
def test_a_point_is_either_fitted_or_held_out(split: Split) -> None:
    both = np.concatenate([split.train, split.test])
    assert sorted(both.tolist()) == list(range(len(DATA)))


@pytest.mark.parametrize("kind", [Kind.BASELINES, Kind.POINTS, Kind.GAMMA, Kind.TOP_K])
def test_every_point_is_held_out_once(kind: Kind) -> None:
    held = np.concatenate([split.test for split in of_kind(kind)])
    assert sorted(held.tolist()) == list(range(len(DATA)))


def test_a_baseline_is_held_out_with_all_of_its_points() -> None:
    for split in of_kind(Kind.BASELINES):
        assert not set(DATA.group[split.train]) & set(DATA.group[split.test])


def test_a_whole_gamma_and_a_whole_top_k_are_held_out() -> None:
    assert [s.name for s in of_kind(Kind.GAMMA)] == ["gamma 1", "gamma 2", "gamma 3", "gamma 5"]
    for split in of_kind(Kind.TOP_K):
        assert not set(DATA.top_k[split.train]) & set(DATA.top_k[split.test])


def test_the_largest_batches_are_the_top_quarter_of_the_sizes() -> None:
    [split] = largest_batches(DATA)
    assert set(DATA.batch_size[split.test]) == {64.0, 128.0}
    assert DATA.batch_size[split.train].max() == 32.0


def test_strided_points_are_those_of_the_rule() -> None:
    assert strided_split(DATA, 21).train.tolist() == EVENLY_21.tolist()


def test_a_seed_gives_the_same_folds_and_another_seed_others() -> None:
    same, other = (all_splits(DATA, seed=seed)[0].test.tolist() for seed in (0, 1))
    assert same == SPLITS[0].test.tolist() != other


def test_one_gamma_is_not_held_out_whole() -> None:
    single = DATA.take(np.flatnonzero((DATA.gamma == 3) & (DATA.top_k == 8)))
    kinds = {split.kind for split in all_splits(single, seed=0)}
    assert kinds == {Kind.BASELINES, Kind.POINTS, Kind.LARGEST}


def test_errors_are_relative_to_what_was_measured() -> None:
    found = errors([1.1, 0.9, 2.4], [1.0, 1.0, 2.0])
    assert (found.mape, found.worst, found.bias) == pytest.approx((0.4 / 3, 0.2, 0.2 / 3))
    assert found.values == 3


@pytest.mark.parametrize(
    ("predicted", "measured_there", "regret"),
    [
        pytest.param([1.2, 1.5], [1.3, 1.6], 0.0, id="the best one is chosen"),
        pytest.param([1.5, 1.2], [1.3, 1.6], 1.6 / 1.3 - 1, id="another one is chosen"),
        pytest.param([0.9, 0.8], [1.25, 0.9], 0.25, id="not to speculate costs the best"),
        pytest.param([1.1, 0.9], [0.8, 0.7], 1 / 0.8 - 1, id="speculating where none should"),
        pytest.param([0.9, 0.9], [0.8, 0.7], 0.0, id="both would not speculate"),
    ],
)
def test_regret_is_what_the_recommended_gamma_loses(predicted, measured_there, regret) -> None:
    assert regret_of(predicted, measured_there) == pytest.approx(regret)


def test_a_cell_with_any_held_out_point_counts_with_all_its_gammas() -> None:
    held = np.flatnonzero((DATA.batch_size == 8) & (DATA.gamma == 2))
    perfect = regrets([(DATA.speedup, held)], DATA)
    assert (perfect.cells, perfect.mean, perfect.worst) == (2, 0.0, 0.0)
    assert regrets([(1.0 / DATA.speedup, held)], DATA).worst > 0.1


def test_expected_acceptance_is_pooled_over_the_setting_it_is_of() -> None:
    lucky = np.where((DATA.top_k == 4)[:, None], DATA.accepted, 0.5 * DATA.accepted)
    data = replace(DATA, accepted=lucky)
    train = data.take(EVENLY_21)
    found = expected_at(train, SETTINGS[EVENLY_21], data, SETTINGS)
    assert found.sigma == pytest.approx(data.sigma)
    assert np.all(found.sigma_variance > 0.0)
    assert np.all(found.counting_variance > found.sigma_variance)  # one point, not all of them


def test_a_measurement_of_fewer_rounds_counts_less_surely() -> None:
    few = replace(DATA, sequence_rounds=DATA.sequence_rounds / 4)
    many, less = (expected_at(DATA, SETTINGS, data, SETTINGS) for data in (DATA, few))
    assert less.counting_variance == pytest.approx(4 * many.counting_variance, rel=0.01)
    assert less.sigma_variance == pytest.approx(many.sigma_variance)


def test_a_setting_without_fitted_points_takes_the_acceptance_of_all() -> None:
    train = np.flatnonzero(DATA.top_k == 4)
    found = expected_at(DATA.take(train), SETTINGS[train], DATA, SETTINGS)
    assert found.sigma == pytest.approx(DATA.sigma)


def test_conditional_rates_are_over_the_rounds_that_tried_a_position() -> None:
    profile = acceptance_profile(DATA)
    assert profile.conditional == pytest.approx([ALPHA] * 5)
    assert profile.tried[0] == 80 * 10_000


def test_positions_that_nobody_reached_are_not_known() -> None:
    nothing = replace(DATA, accepted=np.zeros_like(DATA.accepted))
    assert acceptance_profile(nothing).conditional == (0.0,)


def test_the_seconds_of_a_baseline_that_was_fitted_are_not_held_out() -> None:
    [gamma_one, *_] = of_kind(Kind.GAMMA)
    assert not unseen_baselines(DATA, gamma_one).size
    [fold, *_] = of_kind(Kind.BASELINES)
    assert unseen_baselines(DATA, fold).size == np.unique(DATA.group[fold.test]).size


def test_our_model_on_its_own_data_is_off_by_about_the_noise() -> None:
    found = scores(DATA, cross_validate(DATA, SETTINGS, SPLITS, OURS))
    assert list(found) == [kind for kind in Kind if kind is not Kind.RANKS]
    blind = found[Kind.BASELINES].errors["speedup"]
    assert blind.mape < 0.04
    assert blind.values == len(DATA)
    assert "target_decode_s" not in found[Kind.GAMMA].errors
    assert found[Kind.BASELINES].errors["target_verify_s"].mape < 0.06  # drift included
    assert 0.8 < found[Kind.POINTS].coverage <= 1.0
    assert found[Kind.STRIDED].regret.mean < 0.03


def test_drafting_that_takes_no_time_has_no_error() -> None:
    free = replace(DATA, draft_step_s=np.zeros(len(DATA)))
    forecasts = cross_validate(DATA, SETTINGS, of_kind(Kind.GAMMA), OURS)
    assert "draft_step_s" not in score(free, forecasts).errors


def test_a_perfect_forecast_scores_nothing_wrong() -> None:
    def oracle(_: StepData, points: StepData, __: Expected) -> Forecast:
        return Forecast(speedup=points.speedup, speedup_given_sigma=points.speedup)

    found = score(DATA, cross_validate(DATA, SETTINGS, of_kind(Kind.GAMMA), oracle))
    assert found.errors["speedup"].worst == found.regret.worst == 0.0
    assert set(found.errors) == {"speedup", "speedup_given_sigma"}
    assert found.coverage is None


def test_the_forecaster_is_shown_the_training_points_alone() -> None:
    seen = []

    def spy(train: StepData, points: StepData, _: Expected) -> Forecast:
        seen.append(train.gamma)
        return Forecast(speedup=points.speedup, speedup_given_sigma=points.speedup)

    cross_validate(DATA, SETTINGS, of_kind(Kind.GAMMA), spy)
    assert [set(np.unique(g)) for g in seen] == [{2, 3, 5}, {1, 3, 5}, {1, 2, 5}, {1, 2, 3}]


def test_a_split_that_leaves_too_few_points_says_so_and_is_not_scored() -> None:
    few = DATA.take(np.arange(4))
    held: list[HeldOut] = cross_validate(few, SETTINGS[:4], all_splits(few, seed=0), OURS)
    assert all(h.forecast is None and "at least 4 points" in h.reason for h in held)
    assert scores(few, held) == {}


def test_the_noise_floor_is_the_mean_size_of_a_normal_error() -> None:
    assert noise_floor(DATA) == pytest.approx(0.02 * math.sqrt(2 / math.pi))
    assert noise_floor(replace(DATA, speedup_spread=np.zeros(len(DATA)))) is None


@pytest.mark.parametrize(
    ("experts", "tokens", "regime"),
    [
        pytest.param(8.0, 1, Regime.FEW_EXPERTS, id="one token wakes top_k of them"),
        pytest.param(63.0, 1, Regime.READING, id="few tokens, all experts: bytes"),
        pytest.param(64.0, 4096, Regime.MULTIPLYING, id="many tokens: products"),
    ],
)
def test_regimes_of_a_forward(experts: float, tokens: int, regime: Regime) -> None:
    forwards = Forwards(
        sequences=np.array([tokens]),
        tokens_each=1.0,
        context_tokens=60.0,
        activated_experts=np.array([experts]),
        top_k=8.0,
    )
    assert regimes(MODEL, forwards).tolist() == [regime.value]


def test_residuals_are_gathered_by_regime() -> None:
    found = residuals_by_regime(
        np.array([Regime.READING.value] * 2 + [Regime.MULTIPLYING.value]), [0.03, -0.01, 0.2]
    )
    assert set(found) == {Regime.READING, Regime.MULTIPLYING}
    reading = found[Regime.READING]
    assert (reading.mean, reading.rms) == pytest.approx((0.01, math.sqrt(0.001 / 2)))
    assert reading.forwards == 2
