"""The busiest rank's load, against every possible routing, sums over all loads, and simulated ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import hypergeom, multinomial

from moesd_dist.theory.expert_parallel.activation import expected_busiest_activated
from moesd_dist.theory.expert_parallel.load import expected_busiest_load
from moesd_dist.theory.expert_parallel.load_law import load_spread
from moesd_dist.theory.expert_parallel.popularity import beta_weights
from moesd_dist.theory.expert_parallel.sampling import expert_loads
from tests.theory.expert_parallel.routing_cases import TINY, by_rank, every_load, simulated

TOKENS = np.array([1, 2, 3, 7, 16, 50, 300, 5000, 10**6])


@pytest.mark.parametrize(("num_experts", "top_k", "ranks", "tokens"), TINY)
def test_every_possible_routing_has_this_mean(
    num_experts: int, top_k: int, ranks: int, tokens: int
) -> None:
    busiest = [by_rank(load, ranks).max() for load in every_load(num_experts, top_k, tokens)]
    found = expected_busiest_load(num_experts, top_k, ranks, tokens)
    # Exact for top 1; of several experts each only the sum over all tokens is kept, which is worst
    # for so few experts.
    assert found == pytest.approx(np.mean(busiest), rel=1e-9 if top_k == 1 else 0.02)


@pytest.mark.parametrize(("num_experts", "ranks"), [(64, 4), (256, 32), (60, 7), (8, 8)])
def test_one_token_is_exact(num_experts: int, ranks: int) -> None:
    found = expected_busiest_load(num_experts, 4, ranks, 1)
    assert found == pytest.approx(expected_busiest_activated(num_experts, 4, ranks, 1), rel=1e-9)


@pytest.mark.parametrize("tokens", [2, 5, 9])
def test_top_1_is_multinomial(tokens: int) -> None:
    total = 0.0
    for first in range(tokens + 1):
        for second in range(tokens - first + 1):
            loads = [first, second, tokens - first - second]
            total += max(loads) * multinomial.pmf(loads, tokens, [3 / 8, 3 / 8, 2 / 8])
    assert expected_busiest_load(8, 1, 3, tokens) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize(("num_experts", "top_k"), [(8, 2), (16, 12), (64, 8), (256, 8)])
@pytest.mark.parametrize("tokens", [2, 4, 16, 100])
def test_two_ranks_by_the_convolution_of_one(num_experts: int, top_k: int, tokens: int) -> None:
    one = hypergeom.pmf(np.arange(top_k + 1), num_experts, num_experts // 2, top_k)
    law = np.ones(1)
    for _ in range(tokens):
        law = np.convolve(law, one)
    first = np.arange(len(law))
    exact = law @ np.maximum(first, tokens * top_k - first)
    assert expected_busiest_load(num_experts, top_k, 2, tokens) == pytest.approx(exact, rel=0.004)


@pytest.mark.parametrize(
    ("num_experts", "top_k", "ranks", "tokens"),
    [
        pytest.param(8, 2, 8, 2, id="the worst case: two tokens, two experts each"),
        pytest.param(16, 12, 8, 3, id="most experts chosen"),
        pytest.param(60, 4, 8, 6, id="sizes that differ by one"),
        pytest.param(64, 8, 64, 3, id="one expert a rank"),
        pytest.param(256, 8, 32, 16, id="256 experts"),
        pytest.param(256, 8, 3, 400, id="sizes 86, 85, 85"),
        pytest.param(512, 10, 128, 100, id="128 ranks"),
        pytest.param(512, 10, 512, 20, id="512 ranks"),
    ],
)
def test_simulated_routing_agrees_within_a_percent(
    num_experts: int, top_k: int, ranks: int, tokens: int
) -> None:
    draws = 60_000 if num_experts < 60 else 6000
    sample = simulated(num_experts, top_k, ranks, tokens, draws=draws // (1 + tokens // 50))
    found = float(expected_busiest_load(num_experts, top_k, ranks, tokens))
    assert sample.load_max.error < 0.003 * sample.load_max.mean
    assert found == pytest.approx(sample.load_max.mean, rel=0.01)


@pytest.mark.parametrize(
    ("num_experts", "top_k", "ranks", "tokens", "popularity", "within"),
    [
        pytest.param(64, 8, 64, 16, 14.0, 0.02, id="one expert a rank"),
        pytest.param(64, 8, 8, 64, 14.0, 0.02, id="eight"),
        pytest.param(256, 8, 32, 40, 14.0, 0.02, id="256 experts"),
        pytest.param(256, 8, 64, 16, 5.0, 0.04, id="very popular ones"),
    ],
)
def test_popular_experts_agree_with_simulated_ones(
    num_experts: int, top_k: int, ranks: int, tokens: int, popularity: float, within: float
) -> None:
    rng, draws = np.random.default_rng(0), 3000
    weights = beta_weights(rng, num_experts, top_k, popularity, draws)
    loads = expert_loads(rng, weights, top_k=top_k, sequences=tokens, draws=draws)
    busiest = by_rank(loads, ranks).max(axis=1).mean()
    found = expected_busiest_load(num_experts, top_k, ranks, tokens, popularity)
    assert found == pytest.approx(busiest, rel=within)
    assert found > expected_busiest_load(num_experts, top_k, ranks, tokens)


def test_the_spread_is_the_variance_of_a_rank_over_that_of_independent_throws() -> None:
    rng, draws = np.random.default_rng(1), 20_000
    weights = beta_weights(rng, 64, 8, 14.0, draws)
    load = by_rank(expert_loads(rng, weights, top_k=8, sequences=6, draws=draws), 8)
    throws = 6 * 8 * (1 / 8) * (7 / 8)
    assert load.var() / throws == pytest.approx(load_spread(64, 8, 6, 14.0), rel=0.03)


@pytest.mark.parametrize("popularity", [math.inf, 14.0])
@pytest.mark.parametrize("ranks", [2, 3, 8, 64, 512])
def test_the_busiest_has_more_than_the_mean_and_grows(ranks: int, popularity: float) -> None:
    found = expected_busiest_load(256, 8, ranks, TOKENS, popularity)
    assert (found > TOKENS * 8 / ranks).all()
    assert (np.diff(found) > 0).all()
    relative = found / (TOKENS * 8 / ranks)
    assert (np.diff(relative) < 0).all()


def test_in_the_long_run_only_the_sizes_and_popularity_make_loads_uneven() -> None:
    many = 10**9
    assert expected_busiest_load(256, 8, 8, many) == pytest.approx(many, rel=1e-3)
    assert expected_busiest_load(60, 4, 8, many) == pytest.approx(many * 4 * 8 / 60, rel=1e-3)
    assert expected_busiest_load(256, 8, 8, many, 14.0) > 1.1 * many


def test_large_loads_meet_the_extreme_of_normal_ones() -> None:
    tokens, ranks, most_of_8_normal = 100_000, 8, 1.42360
    deviation = math.sqrt(tokens * 8 / ranks * 248 / 255)
    expected = tokens * 8 / ranks + most_of_8_normal * deviation
    found = expected_busiest_load(256, 8, ranks, tokens)
    assert found - tokens == pytest.approx(expected - tokens, rel=0.01)


def test_no_chance_is_left_where_all_experts_or_one_rank_are_taken() -> None:
    assert expected_busiest_load(64, 8, 1, 10) == 80.0
    assert expected_busiest_load(64, 64, 8, 10) == 80.0
    assert expected_busiest_load(64, 8, 8, 0) == 0.0


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="ranks must be at least 1, got 0"):
        expected_busiest_load(8, 2, 0, 1)
    with pytest.raises(ValueError, match="gate_tokens must be >= 0, got -1"):
        expected_busiest_load(8, 2, 2, -1)
