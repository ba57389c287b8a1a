"""gamma by batch size: clear winners, ties, doubts, and one gamma for all."""

from __future__ import annotations

import math

import numpy as np
import pytest

from moesd_dist.theory.choices.decision import Rule
from moesd_dist.theory.choices.recommendation import Choice, choose, intervals, static_choice

GAMMAS = (0, 1, 2, 3)
SURE = (0.0, 0.001, 0.001, 0.001)


def logs(*speedups: float) -> np.ndarray:
    return np.log(speedups)


def variances(*spreads: float) -> np.ndarray:
    return np.diag(np.square(spreads))


def shared(spread: float, own: float, count: int = 3) -> np.ndarray:
    """Errors of which a part is common to all gammas but 0."""
    covariance = np.full((count + 1, count + 1), spread**2) + np.eye(count + 1) * own**2
    covariance[0, :] = covariance[:, 0] = 0.0
    return covariance


@pytest.mark.parametrize(
    ("speedups", "spreads", "gamma", "rivals"),
    [
        pytest.param((1, 1.2, 1.5, 1.3), SURE, 2, (), id="a clear winner"),
        pytest.param((1, 0.7, 0.6, 0.5), SURE, 0, (), id="everything below 1 switches SD off"),
        pytest.param((1, 1.015, 1.0, 0.9), SURE, 0, (), id="a gain below the tolerance is not worth SD"),
        pytest.param((1, 1.2, 1.5, 1.51), SURE, 2, (), id="of a tie the smaller gamma"),
        pytest.param((1, 1.2, 1.495, 1.5), (0, 0.001, 0.1, 0.1), 2, (3,), id="an unsure tie is undecided"),
        pytest.param((1, 1.05, 0.7, 0.6), (0, 0.2, 0.01, 0.01), 1, (0,), id="SD off is a rival too"),
        pytest.param((1, 1.3, 1.5, 1.4), (0, 0.001, 0.001, 0.2), 2, (3,), id="a vague gamma stays a rival"),
        pytest.param((1, 1.49, 1.5, 1.0), (0, 0.1, 0.001, 0.001), 1, (2,), id="the smaller one if none is decided"),
        pytest.param((1, 1.475, 1.5, 1.5), (0, 0.001, 0.001, 0.012), 2, (), id="the smallest that is decided"),
    ],
)  # fmt: skip
def test_a_choice_and_who_may_yet_beat_it(speedups, spreads, gamma, rivals):
    choice = choose(8, GAMMAS, logs(*speedups), variances(*spreads))
    assert (choice.gamma, choice.rivals) == (gamma, rivals)
    assert choice.decided == (not choice.rivals)
    assert choice.speedup == pytest.approx(speedups[gamma])


@pytest.mark.parametrize(
    ("spreads", "unsure"),
    [
        pytest.param((0, 0.001, 0.2, 0.1), 2, id="the chosen one is vaguer"),
        pytest.param((0, 0.001, 0.1, 0.2), 3, id="its rival is"),
    ],
)
def test_the_vaguer_of_the_two_is_measured_next(spreads, unsure):
    choice = choose(16, GAMMAS, logs(1, 1.2, 1.5, 1.5), variances(*spreads))
    assert choice.gamma == 2
    assert choice.likeliest == 3
    assert choice.measure_next == (16, unsure)


def test_a_decided_choice_needs_no_measurement():
    assert choose(8, GAMMAS, logs(1, 1.2, 1.5, 1.3), variances(*SURE)).measure_next is None


def test_variances_alone_are_independent_errors():
    spreads = (0.0, 0.05, 0.1, 0.02)
    whole = choose(8, GAMMAS, logs(1, 1.2, 1.4, 1.4), variances(*spreads))
    assert choose(8, GAMMAS, logs(1, 1.2, 1.4, 1.4), np.square(spreads)) == whole


def test_errors_that_gammas_share_do_not_make_a_doubt():
    speedups = logs(1, 1.2, 1.45, 1.5)
    apart = choose(8, GAMMAS, speedups, shared(0.0, 0.1))
    together = choose(8, GAMMAS, speedups, shared(0.1, 0.001))
    assert not apart.decided
    assert together.decided
    assert together.gamma == 3
    assert together.high == pytest.approx(apart.high, rel=0.001)  # as vague, each for itself


def test_the_interval_of_the_speedup_is_normal():
    choice = choose(8, (0, 2), logs(1, 1.5), variances(0, 0.1))
    assert (choice.low, choice.high) == pytest.approx((1.5 * math.exp(-0.196), 1.5 * math.exp(0.196)), rel=1e-4)  # fmt: skip


def test_the_chance_agrees_with_sampling():
    rng = np.random.default_rng(0)
    mean, covariance = logs(1, 1.3, 1.4, 1.42), shared(0.05, 0.04)
    choice = choose(8, GAMMAS, mean, covariance)
    drawn = rng.multivariate_normal(mean, covariance, size=200_000)
    own, rival = drawn[:, GAMMAS.index(choice.gamma)], drawn[:, GAMMAS.index(choice.likeliest)]
    assert choice.chance == pytest.approx(np.mean(rival - own > math.log(1.02)), abs=0.005)


@pytest.mark.parametrize(
    ("rule", "decided"),
    [
        pytest.param(Rule(tolerance=0.02, confidence=0.9), False, id="as it is"),
        pytest.param(Rule(tolerance=0.2, confidence=0.9), True, id="a coarse tolerance"),
        pytest.param(Rule(tolerance=0.02, confidence=0.5), True, id="a coin's confidence"),
    ],
)
def test_a_looser_rule_decides_more(rule, decided):
    found = choose(8, (0, 1, 2), logs(1, 1.3, 1.4), variances(0, 0.06, 0.06), rule=rule)
    assert found.decided == decided


@pytest.mark.parametrize(
    ("gammas", "speedups", "covariance", "says"),
    [
        pytest.param((0, 1), [0.0], np.eye(2), "go with 2 gammas", id="too few speedups"),
        pytest.param((0, 1), [0.0, 0.1], np.eye(3), "go with 2 gammas", id="another covariance"),
        pytest.param((1, 0), [0.1, 0.0], np.eye(2), "must rise", id="not sorted"),
        pytest.param((1, 1), [0.1, 0.0], np.eye(2), "must rise", id="twice"),
        pytest.param((), [], np.zeros((0, 0)), "go with 0 gammas", id="none"),
    ],
)
def test_what_does_not_fit_is_refused(gammas, speedups, covariance, says):
    with pytest.raises(ValueError, match=says):
        choose(8, gammas, speedups, covariance)


@pytest.mark.parametrize("values", [{"tolerance": -0.1}, {"confidence": 1.0}, {"confidence": 0.4}])
def test_a_rule_outside_its_range_is_refused(values):
    with pytest.raises(ValueError, match="tolerance must be 0 or more and confidence"):
        Rule(**values)


SIZES = (1, 8, 64)
BY_BATCH = np.array([logs(1, 1.05, 0.9), logs(1, 1.4, 1.6), logs(1, 1.3, 1.2)])
EXACT = np.zeros((3, 3, 3))


def test_one_gamma_for_all_has_the_best_geometric_mean():
    static = static_choice(SIZES, (0, 1, 2), BY_BATCH, EXACT)
    assert static.gamma == 1
    assert static.speedup == pytest.approx((1.05 * 1.4 * 1.3) ** (1 / 3))
    assert (static.worst_batch_size, static.worst_speedup) == (1, pytest.approx(1.05))
    assert static.decided
    assert static.measure_next is None


def test_weights_move_the_static_gamma():
    assert static_choice(SIZES, (0, 1, 2), BY_BATCH, EXACT, weights=[0, 1, 0]).gamma == 2


def test_a_static_doubt_names_the_batch_size_that_is_known_least():
    blocks = np.stack([variances(0, s, s / 2) for s in (0.05, 0.4, 0.1)])
    static = static_choice(SIZES, (0, 1, 2), BY_BATCH, blocks)
    assert not static.decided
    assert static.measure_next == (8, 1)


@pytest.mark.parametrize("weights", [[0, 0, 0], [1, -1, 1]])
def test_weights_that_are_no_shares_are_refused(weights):
    with pytest.raises(ValueError, match="weights must be 0 or more"):
        static_choice(SIZES, (0, 1, 2), BY_BATCH, EXACT, weights=weights)


def chosen(*pairs: tuple[int, int]) -> list[Choice]:
    return [Choice(batch_size=b, gamma=gamma, speedup=1.0, low=1.0, high=1.0) for b, gamma in pairs]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        pytest.param([(1, 2), (2, 2), (3, 1)], [(1, 2, 2), (3, 3, 1)], id="neighbours are joined"),
        pytest.param([(1, 2), (8, 1), (64, 0)], [(1, 7, 2), (8, 63, 1), (64, 64, 0)], id="a gap takes the smaller one's"),
        pytest.param([(4, 3)], [(1, 4, 3)], id="below the first its own gamma holds"),
        pytest.param([(1, 1), (2, 3), (3, 1)], [(1, 1, 1), (2, 2, 3), (3, 3, 1)], id="gammas may return"),
    ],
)  # fmt: skip
def test_intervals_cover_every_batch_size(pairs, expected):
    assert intervals(chosen(*pairs)) == expected


@pytest.mark.parametrize("pairs", [[], [(2, 1), (1, 1)], [(1, 1), (1, 2)], [(0, 1)]])
def test_intervals_of_unordered_batch_sizes_are_refused(pairs):
    with pytest.raises(ValueError, match="rising order"):
        intervals(chosen(*pairs))
