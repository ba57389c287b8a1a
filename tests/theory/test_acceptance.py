"""Tokens per round, sigma and the acceptance rate, against their limits, sampling and the paper."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from moesd_dist.theory import acceptance

ALPHAS = (0.0, 1e-9, 0.25, 0.5, 0.8, 0.95, 1 - 1e-9, 1.0)
GAMMAS = (1, 2, 3, 4, 8, 16, 48)


@pytest.mark.parametrize(
    ("alpha", "gamma", "expected"),
    [
        pytest.param(1.0, 4, 5.0, id="every draft accepted adds the bonus token"),
        pytest.param(0.0, 4, 1.0, id="no draft accepted leaves the target's own token"),
        pytest.param(0.7, 0, 1.0, id="nothing drafted is plain decoding"),
        pytest.param(0.5, 1, 1.5, id="one draft is accepted half of the time"),
        pytest.param(0.5, 3, 1.875, id="halves add up"),
    ],
)
def test_tokens_per_round_at_its_limits(alpha: float, gamma: int, expected: float) -> None:
    assert acceptance.tokens_per_round(alpha, gamma) == expected


def test_three_numbers_that_are_not_the_same() -> None:
    assert acceptance.tokens_per_round(0.8, 4) == pytest.approx(3.36, abs=0.005)
    assert acceptance.sigma(0.8, 4) == pytest.approx(0.672, abs=0.0005)
    assert acceptance.draft_acceptance_rate(0.8, 4) == pytest.approx(0.590, abs=0.0005)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 0.8, 0.95])
def test_tokens_per_round_is_the_papers_closed_form(alpha: float, gamma: int) -> None:
    closed = (1 - alpha ** (gamma + 1)) / (1 - alpha)
    assert acceptance.tokens_per_round(alpha, gamma) == pytest.approx(closed, rel=1e-12)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_near_alpha_one_the_slope_is_that_of_the_exact_sum(gamma: int) -> None:
    lost = gamma + 1 - acceptance.tokens_per_round(1 - 1e-9, gamma)
    assert lost == pytest.approx(1e-9 * gamma * (gamma + 1) / 2, rel=1e-4)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_accepted_drafts_are_the_tokens_without_the_bonus(gamma: int) -> None:
    accepted = acceptance.draft_acceptance_rate(0.8, gamma) * gamma
    assert 1 + accepted == pytest.approx(acceptance.tokens_per_round(0.8, gamma), rel=1e-12)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        pytest.param(1.0, 1.0, id="all drafts accepted"),
        pytest.param(0.0, 0.0, id="no draft accepted"),
        pytest.param(1e-20, 1e-20 / 4, id="so few that one plus them is one"),
    ],
)
def test_draft_acceptance_rate_at_its_limits(alpha: float, expected: float) -> None:
    assert acceptance.draft_acceptance_rate(alpha, 4) == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.parametrize("law", [acceptance.sigma, acceptance.draft_acceptance_rate])
def test_more_alpha_gives_more_and_more_gamma_a_smaller_share(
    law: Callable[[float, int], float],
) -> None:
    table = np.array([[law(alpha, gamma) for gamma in GAMMAS] for alpha in (0.2, 0.5, 0.8, 0.9)])
    assert (np.diff(table, axis=0) > 0).all()
    assert (np.diff(table, axis=1) < 0).all()


def test_sampled_rounds_agree() -> None:
    rng = np.random.default_rng(7)
    accepted = np.cumprod(rng.random((200_000, 4)) < 0.8, axis=1)
    assert 1 + accepted.sum(axis=1).mean() == pytest.approx(
        acceptance.tokens_per_round(0.8, 4), abs=0.02
    )
    assert accepted.mean() == pytest.approx(acceptance.draft_acceptance_rate(0.8, 4), abs=0.005)
    assert acceptance.conditional_from_unconditional(accepted.mean(axis=0)) == pytest.approx(
        [0.8] * 4, abs=0.005
    )


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_alpha_comes_back_from_its_sigma(alpha: float, gamma: int) -> None:
    found = acceptance.alpha_from_sigma(acceptance.sigma(alpha, gamma), gamma)
    assert found == pytest.approx(alpha, abs=1e-12)


@pytest.mark.parametrize("gamma", range(1, 101))
def test_the_ends_of_sigma_give_the_ends_of_alpha(gamma: int) -> None:
    assert acceptance.alpha_from_sigma(1 / (gamma + 1), gamma) == 0.0
    assert acceptance.alpha_from_sigma(1.0, gamma) == 1.0


def test_one_draft_inverts_to_a_straight_line() -> None:
    assert acceptance.alpha_from_sigma(0.9, 1) == pytest.approx(2 * 0.9 - 1, abs=1e-12)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_equal_conditional_rates_give_the_one_parameter_law(gamma: int) -> None:
    unconditional = acceptance.unconditional_from_conditional([0.8] * gamma)
    assert unconditional == pytest.approx(0.8 ** np.arange(1, gamma + 1))
    assert acceptance.acceptance_length(unconditional) == pytest.approx(
        acceptance.tokens_per_round(0.8, gamma)
    )


def test_conditional_rates_divide_neighbours_and_multiply_back() -> None:
    conditional = acceptance.conditional_from_unconditional([0.8, 0.6, 0.15])
    assert conditional == pytest.approx([0.8, 0.75, 0.25])
    assert acceptance.unconditional_from_conditional(conditional) == pytest.approx([0.8, 0.6, 0.15])


@pytest.mark.filterwarnings("error")
def test_a_position_never_tried_has_no_conditional_rate() -> None:
    conditional = acceptance.conditional_from_unconditional([0.5, 0.0, 0.0])
    np.testing.assert_array_equal(conditional, [0.5, 0.0, np.nan])


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        pytest.param([], 1.0, id="nothing drafted"),
        pytest.param([0.0, 0.0], 1.0, id="nothing accepted"),
        pytest.param([1.0, 1.0, 1.0], 4.0, id="everything accepted"),
        pytest.param([0.75, 0.75, 0.25], 2.75, id="equal neighbours are allowed"),
    ],
)
def test_acceptance_length_counts_the_bonus_token(rates: list[float], expected: float) -> None:
    assert acceptance.acceptance_length(rates) == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(
            lambda: acceptance.sigma(1.2, 4), r"alpha .* got 1\.2; use", id="alpha above one"
        ),
        pytest.param(
            lambda: acceptance.sigma(float("nan"), 4), "alpha .* got nan", id="alpha not a number"
        ),
        pytest.param(
            lambda: acceptance.tokens_per_round(0.5, -1), "at least 0, got -1", id="gamma negative"
        ),
        pytest.param(
            lambda: acceptance.draft_acceptance_rate(0.5, 0), "at least 1, got 0", id="no drafts"
        ),
        pytest.param(
            lambda: acceptance.alpha_from_sigma(1.0, 0), "at least 1, got 0", id="no drafts invert"
        ),
        pytest.param(
            lambda: acceptance.alpha_from_sigma(0.19, 4),
            r"got 0\.19 at gamma 4",
            id="less than the bonus token",
        ),
        pytest.param(
            lambda: acceptance.alpha_from_sigma(1.01, 4),
            r"got 1\.01 at gamma 4",
            id="more than all tokens",
        ),
        pytest.param(
            lambda: acceptance.acceptance_length([0.5, 0.6]),
            r"never increase .* 0\.5 then 0\.6; pass",
            id="an unconditional rate that rises",
        ),
        pytest.param(
            lambda: acceptance.conditional_from_unconditional([0.0, 0.1]),
            "never increase",
            id="accepted behind a position that never was",
        ),
        pytest.param(
            lambda: acceptance.unconditional_from_conditional([0.5, float("nan")]),
            "probability, got nan",
            id="an unknown rate cannot be multiplied on",
        ),
        pytest.param(
            lambda: acceptance.acceptance_length([3.0]), r"got 3\.0; use", id="counts, not rates"
        ),
        pytest.param(
            lambda: acceptance.acceptance_length([[0.5]]), r"shape \(1, 1\)", id="a matrix"
        ),
    ],
)
def test_errors_say_the_rule_and_the_value(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
