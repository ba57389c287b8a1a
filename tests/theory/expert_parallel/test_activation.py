"""Activated experts of the busiest rank, against every possible routing and against simulated ones."""

from __future__ import annotations

import numpy as np
import pytest

from moesd_dist.theory.expert_parallel.activation import (
    busiest_given_distinct,
    distinct_law,
    expected_busiest_activated,
    rank_sizes,
)
from moesd_dist.theory.experts import expected_activated_experts
from tests.theory.expert_parallel.routing_cases import TINY, by_rank, every_load, simulated

ROUTERS = [(8, 2), (60, 4), (64, 8), (128, 8), (256, 8), (384, 8), (512, 10)]
TOKENS = np.array([1, 2, 3, 7, 16, 50, 300, 5000])


@pytest.mark.parametrize(("num_experts", "top_k", "ranks", "tokens"), TINY)
def test_every_possible_routing_has_this_mean(
    num_experts: int, top_k: int, ranks: int, tokens: int
) -> None:
    busiest = [by_rank(load > 0, ranks).max() for load in every_load(num_experts, top_k, tokens)]
    found = expected_busiest_activated(num_experts, top_k, ranks, tokens)
    assert found == pytest.approx(np.mean(busiest), rel=1e-12)


@pytest.mark.parametrize(("num_experts", "top_k"), ROUTERS)
def test_one_rank_has_all_that_are_active(num_experts: int, top_k: int) -> None:
    found = expected_busiest_activated(num_experts, top_k, 1, TOKENS)
    expected = expected_activated_experts(num_experts, top_k, TOKENS)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize(("num_experts", "top_k"), ROUTERS)
@pytest.mark.parametrize("ranks", [2, 3, 8, 32, 512])
def test_the_busiest_has_at_least_the_mean_and_at_most_its_slots(
    num_experts: int, top_k: int, ranks: int
) -> None:
    found = expected_busiest_activated(num_experts, top_k, ranks, TOKENS)
    mean = expected_activated_experts(num_experts, top_k, TOKENS) / ranks
    slots = -(-num_experts // ranks)
    assert (found >= mean * (1 - 1e-12)).all()
    assert (found <= slots).all()
    assert (np.diff(found) >= -1e-12).all()
    assert found[-1] == pytest.approx(slots, rel=1e-6)


@pytest.mark.parametrize("tokens", [1, 4, 100])
def test_a_rank_for_each_expert_has_one_at_most_and_more_ranks_change_nothing(tokens: int) -> None:
    assert expected_busiest_activated(64, 8, 64, tokens) == pytest.approx(1.0, rel=1e-12)
    assert expected_busiest_activated(64, 8, 300, tokens) == pytest.approx(1.0, rel=1e-12)


def test_no_token_activates_nothing() -> None:
    assert expected_busiest_activated(64, 8, 4, 0) == 0.0


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 8, 64])
def test_more_ranks_have_fewer_experts_each(ranks: int) -> None:
    few = expected_busiest_activated(64, 8, ranks + 1, TOKENS)
    assert (few <= expected_busiest_activated(64, 8, ranks, TOKENS) + 1e-12).all()


def test_tokens_between_whole_numbers_lie_between() -> None:
    halves = expected_busiest_activated(64, 8, 8, np.arange(0.0, 40.0, 0.5))
    assert (np.diff(halves) > 0).all()


@pytest.mark.parametrize(
    ("num_experts", "top_k", "ranks", "tokens"),
    [
        pytest.param(8, 2, 2, 2, id="the smallest"),
        pytest.param(60, 4, 8, 6, id="sizes that differ by one"),
        pytest.param(64, 8, 16, 5, id="64 experts"),
        pytest.param(256, 8, 7, 40, id="37 or 36 experts a rank"),
        pytest.param(256, 8, 32, 16, id="256 experts"),
        pytest.param(512, 10, 512, 20, id="one expert a rank"),
        pytest.param(512, 10, 64, 100, id="64 ranks"),
        pytest.param(512, 1, 100, 150, id="top 1"),
    ],
)
def test_simulated_routing_agrees_within_a_percent(
    num_experts: int, top_k: int, ranks: int, tokens: int
) -> None:
    sample = simulated(num_experts, top_k, ranks, tokens, draws=3000)
    found = float(expected_busiest_activated(num_experts, top_k, ranks, tokens))
    assert found == pytest.approx(sample.activated_max.mean, rel=0.01)
    assert abs(found - sample.activated_max.mean) <= 4.5 * sample.activated_max.error + 1e-9


@pytest.mark.parametrize(("num_experts", "top_k"), [*ROUTERS, (4, 4), (512, 1)])
def test_the_law_of_distinct_experts_has_the_known_mean(num_experts: int, top_k: int) -> None:
    law = distinct_law(num_experts, top_k)
    tokens = np.arange(len(law))
    np.testing.assert_allclose(law.sum(axis=1), 1.0, rtol=1e-12)
    expected = expected_activated_experts(num_experts, top_k, tokens)
    np.testing.assert_allclose(law @ np.arange(num_experts + 1.0), expected, rtol=1e-9)


def test_given_all_experts_the_largest_rank_has_its_slots() -> None:
    assert busiest_given_distinct(10, 4).tolist()[:2] == [0.0, 1.0]
    assert busiest_given_distinct(10, 4)[10] == 3.0


@pytest.mark.parametrize(
    ("num_experts", "ranks", "sizes"),
    [
        pytest.param(8, 4, ((4, 2),), id="even"),
        pytest.param(10, 4, ((2, 3), (2, 2)), id="two larger ones"),
        pytest.param(3, 5, ((3, 1), (2, 0)), id="two without"),
    ],
)
def test_experts_are_shared_out_evenly(
    num_experts: int, ranks: int, sizes: tuple[tuple[int, int], ...]
) -> None:
    assert rank_sizes(num_experts, ranks) == sizes


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="ranks must be at least 1, got 0"):
        expected_busiest_activated(8, 2, 0, 1)
    with pytest.raises(ValueError, match="top_k 9 exceeds num_experts 8"):
        expected_busiest_activated(8, 9, 2, 1)
    with pytest.raises(ValueError, match="num_experts 1001 exceeds 1000"):
        expected_busiest_activated(1001, 8, 2, 1)
