"""Rates by position: counted, pooled, published as lengths; and how sure sigma is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from moesd_dist.theory import acceptance
from moesd_dist.theory.acceptance_profile import AcceptanceProfile, pooled

GAMMAS = (1, 2, 3, 4, 8, 16)
FALLING = AcceptanceProfile.from_counts([80, 60, 15], 100)


def test_counts_become_shares_of_the_rounds_that_tried() -> None:
    assert FALLING.conditional == pytest.approx((0.8, 0.75, 0.25))
    assert FALLING.tried == (100, 80, 60)
    assert FALLING.rounds == 100
    assert FALLING.unconditional(3) == pytest.approx((0.8, 0.6, 0.15))
    assert FALLING.acceptance_length(3) == pytest.approx(2.55)
    assert FALLING.sigma(3) == pytest.approx(2.55 / 4)


@pytest.mark.parametrize(
    ("gamma", "length", "extrapolated"),
    [
        pytest.param(0, 1.0, 0, id="nothing drafted leaves the target's own token"),
        pytest.param(1, 1.8, 0, id="a smaller gamma needs the first rates alone"),
        pytest.param(3, 2.55, 0, id="the gamma that was measured"),
        pytest.param(4, 2.55 + 0.15 * 0.25, 1, id="the last conditional rate once more"),
        pytest.param(5, 2.55 + 0.15 * 0.25 + 0.15 * 0.25**2, 2, id="and twice"),
    ],
)
def test_another_gamma(gamma: int, length: float, extrapolated: int) -> None:
    assert FALLING.acceptance_length(gamma) == pytest.approx(length)
    assert FALLING.extrapolated(gamma) == extrapolated
    assert len(FALLING.rates(gamma)) == gamma


def test_behind_a_position_that_was_never_accepted_nothing_is_guessed() -> None:
    profile = AcceptanceProfile.from_counts([5, 0, 0], 10)
    assert (profile.conditional, profile.tried) == ((0.5, 0.0), (10, 5))
    assert profile.extrapolated(7) == 0
    assert profile.acceptance_length(7) == 1.5


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.8, 1.0])
def test_one_rate_for_all_positions_is_the_law_of_alpha(alpha: float, gamma: int) -> None:
    profile = AcceptanceProfile(conditional=(alpha,))
    assert profile.acceptance_length(gamma) == pytest.approx(
        acceptance.tokens_per_round(alpha, gamma), rel=1e-12
    )
    assert profile.sigma(gamma) == pytest.approx(acceptance.sigma(alpha, gamma), rel=1e-12)


def test_pooling_takes_each_position_over_the_rounds_that_tried_it() -> None:
    short, long = AcceptanceProfile.from_counts([30], 40), FALLING
    both = pooled([short, long])
    assert both.tried == (140, 80, 60)
    assert both.conditional == pytest.approx((110 / 140, 0.75, 0.25))


def test_pooling_equal_gammas_is_adding_counts() -> None:
    parts = [AcceptanceProfile.from_counts(counts, 50) for counts in ([40, 30, 7], [40, 30, 8])]
    both = pooled(parts)
    assert both.conditional == pytest.approx(FALLING.conditional)
    assert both.tried == FALLING.tried


def test_pooling_never_ends_above_one() -> None:
    perfect = [AcceptanceProfile.from_counts([n], n) for n in (3, 7, 11, 49)]
    assert pooled(perfect).conditional == (1.0,)


@pytest.mark.parametrize(
    ("rates", "rounds", "conditional", "tried"),
    [
        pytest.param([0.8, 0.6, 0.15], 100, (0.8, 0.75, 0.25), (100, 80, 60), id="with rounds"),
        pytest.param([0.8, 0.6], 0, (0.8, 0.75), (), id="rounds unknown"),
        pytest.param([0.5, 0.0, 0.0], 10, (0.5, 0.0), (10, 5), id="never accepted, never tried"),
    ],
)
def test_unconditional_rates_are_divided(
    rates: list[float], rounds: int, conditional: tuple[float, ...], tried: tuple[int, ...]
) -> None:
    profile = AcceptanceProfile.from_unconditional(rates, rounds=rounds)
    assert profile.conditional == pytest.approx(conditional)
    assert profile.tried == tried


@pytest.mark.parametrize(
    ("lengths", "conditional"),
    [
        pytest.param({1: 1.8, 2: 2.4, 3: 2.55}, (0.8, 0.75, 0.25), id="consecutive: differences"),
        pytest.param({2: 1.75}, (0.5, 0.5), id="one length: the law of alpha"),
        pytest.param({1: 1.8, 3: 1.8 + 0.8 * 0.75}, (0.8, 0.5, 0.5), id="a gap: one rate for both"),
        pytest.param({3: 4.0}, (1.0, 1.0, 1.0), id="everything accepted"),
        pytest.param({2: 1.0}, (0.0, 0.0), id="nothing accepted"),
        pytest.param({1: 1.5, 3: 1.5}, (0.5, 0.0, 0.0), id="nothing gained"),
        pytest.param({1: 1.0, 2: 1.0}, (0.0, 0.0), id="nothing ever"),
    ],
)
def test_published_lengths_become_rates(
    lengths: dict[int, float], conditional: tuple[float, ...]
) -> None:
    assert AcceptanceProfile.from_lengths(lengths).conditional == pytest.approx(conditional)


@pytest.mark.parametrize(
    "lengths",
    [
        {1: 1.87, 2: 2.51, 3: 2.97, 5: 3.52, 8: 3.86},
        {3: 2.44, 7: 2.9},
        {1: 1.97, 2: 2.94, 4: 4.8},
        {16: 1.0001},
    ],
    ids=str,
)
@pytest.mark.parametrize("bonus_included", [True, False])
def test_every_published_length_is_reproduced(
    lengths: dict[int, float], bonus_included: bool
) -> None:
    given = lengths if bonus_included else {k: v - 1.0 for k, v in lengths.items()}
    profile = AcceptanceProfile.from_lengths(given, bonus_included=bonus_included)
    for gamma, length in lengths.items():
        assert profile.acceptance_length(gamma) == pytest.approx(length, rel=1e-12)


@pytest.mark.parametrize("gamma", [1, 3, 4, 6])
def test_sigma_is_as_sure_as_the_tokens_of_a_round_say(gamma: int) -> None:
    """Seeded Monte Carlo: the spread of sigma over many measurements of 200 rounds each."""
    rng = np.random.default_rng(3)
    rates, rounds = (0.8, 0.75, 0.25), 200
    accepted = np.cumprod(rng.random((4000, rounds, 3)) < rates, axis=2).sum(axis=1)
    profiles = [AcceptanceProfile.from_counts(list(map(int, row)), rounds) for row in accepted]
    spread = np.var([profile.sigma(gamma) for profile in profiles])
    predicted = np.mean([profile.sigma_variance(gamma) for profile in profiles])
    assert predicted == pytest.approx(spread, rel=0.08)


def test_at_the_measured_gamma_the_variance_is_that_of_a_rounds_tokens() -> None:
    tokens = np.repeat([1, 2, 3, 4], [20, 20, 45, 15])  # 80, 60, 15 of 100 accepted
    assert FALLING.sigma_variance(3) == pytest.approx(tokens.var() / 100 / 4**2, rel=1e-12)


def test_one_position_is_a_binomial() -> None:
    profile = AcceptanceProfile.from_counts([30], 40)
    assert profile.sigma_variance(1) == pytest.approx(0.75 * 0.25 / 40 / 4)


def test_more_rounds_are_surer_and_unknown_rounds_say_nothing() -> None:
    more = AcceptanceProfile.from_counts([800, 600, 150], 1000)
    assert more.sigma_variance(3) == pytest.approx(FALLING.sigma_variance(3) / 10)
    assert AcceptanceProfile(conditional=(0.8,)).sigma_variance(3) == 0.0
    assert FALLING.sigma_variance(0) == 0.0


def test_dispersion_multiplies_the_variance() -> None:
    text = replace(FALLING, dispersion=4.0)
    assert text.sigma_variance(3) == pytest.approx(4 * FALLING.sigma_variance(3))
    assert pooled([text, FALLING]).dispersion == 4.0


def test_a_profile_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        FALLING.conditional = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(
            lambda: AcceptanceProfile.from_counts([5, 7], 10), "got 5 then 7; give", id="rising"
        ),
        pytest.param(
            lambda: AcceptanceProfile.from_counts([11], 10), "got 10 then 11", id="beyond rounds"
        ),
        pytest.param(
            lambda: AcceptanceProfile.from_counts([0], 0), "got 0 rounds; give", id="no rounds"
        ),
        pytest.param(
            lambda: AcceptanceProfile(conditional=()), "at least one position", id="no rate"
        ),
        pytest.param(
            lambda: AcceptanceProfile(conditional=(1.2,)), r"got 1\.2; use", id="no probability"
        ),
        pytest.param(
            lambda: AcceptanceProfile(conditional=(0.5, 0.5), tried=(3,)),
            r"2 rates .* got \(3,\)",
            id="rounds of one position",
        ),
        pytest.param(
            lambda: replace(FALLING, dispersion=0.5), r"at least 1, got 0\.5", id="too sure"
        ),
        pytest.param(
            lambda: pooled([FALLING, AcceptanceProfile(conditional=(0.5,))]),
            "got 2, 1 without",
            id="pooling without rounds",
        ),
        pytest.param(lambda: pooled([]), "got 0", id="pooling nothing"),
        pytest.param(
            lambda: AcceptanceProfile.from_lengths({1: 1.8, 2: 1.7}), "never falls", id="falling"
        ),
        pytest.param(
            lambda: AcceptanceProfile.from_lengths({1: 1.5, 2: 2.3}),
            r"never accepted more often .* \(0\.5\), got 0\.8 a position from gamma 1 to 2; leave",
            id="gains grow",
        ),
        pytest.param(
            lambda: AcceptanceProfile.from_lengths({1: 1.0, 2: 1.5}),
            "never accepted more often",
            id="accepted behind what never was",
        ),
        pytest.param(
            lambda: AcceptanceProfile.from_lengths({3: 0.9}),
            "between 1 and 4, got 0.9; the bonus convention is wrong: .* excluded",
            id="a length without its bonus token",
        ),
        pytest.param(
            lambda: AcceptanceProfile.from_lengths({3: 3.4}, bonus_included=False),
            "between 0 and 3, got 3.4; the bonus convention is wrong: .* included",
            id="a length with a bonus token too many",
        ),
        pytest.param(
            lambda: AcceptanceProfile.from_lengths({3: 4.5}), "check gamma", id="beyond any"
        ),
        pytest.param(lambda: AcceptanceProfile.from_lengths({}), r"got \[\]", id="no lengths"),
        pytest.param(
            lambda: AcceptanceProfile.from_lengths({0: 1.0}), "at least 1, got", id="gamma 0"
        ),
        pytest.param(lambda: FALLING.rates(-1), "at least 0, got -1", id="negative gamma"),
    ],
)
def test_errors_say_the_rule_and_the_value(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
