"""Simulated routing: chances come out as asked, repeats repeat, replicas share."""

from __future__ import annotations

import numpy as np
import pytest

from moesd_dist.theory.expert_parallel import placement
from moesd_dist.theory.expert_parallel.balanced import balanced
from moesd_dist.theory.expert_parallel.popularity import (
    beta_weights,
    chosen_chances,
    measured_weights,
    power_law_weights,
)
from moesd_dist.theory.expert_parallel.sampling import draw_choices, expert_loads
from moesd_dist.theory.expert_parallel.simulation import (
    expected_activated_by_rank,
    simulate_ranks,
    turns,
)


def test_the_seed_fixes_everything() -> None:
    first, again = (
        expert_loads(
            np.random.default_rng(3), power_law_weights(16, 1.0), top_k=4, sequences=5, draws=7
        )
        for _ in range(2)
    )
    assert (first == again).all()
    assert (first.sum(axis=1) == 20).all()


@pytest.mark.parametrize("weights", [np.ones(8), power_law_weights(8, 1.5)], ids=["even", "skewed"])
@pytest.mark.parametrize("top_k", [1, 3, 8])
def test_a_token_chooses_distinct_experts(weights: np.ndarray, top_k: int) -> None:
    chosen = draw_choices(np.random.default_rng(0), weights, top_k=top_k, draws=20, tokens=50)
    assert chosen.shape == (20, 50, top_k)
    assert (np.diff(np.sort(chosen, axis=-1), axis=-1) > 0).all()


def test_uniform_choices_take_every_pair_equally_often() -> None:
    chosen = draw_choices(np.random.default_rng(0), np.ones(5), top_k=2, draws=1, tokens=100_000)
    pairs = np.sort(chosen[0], axis=1) @ [5, 1]
    _, counts = np.unique(pairs, return_counts=True)
    assert len(counts) == 10
    assert (np.abs(counts - 10_000) < 500).all()


@pytest.mark.parametrize(
    ("num_experts", "top_k", "exponent"), [(8, 2, 1.0), (64, 8, 1.0), (64, 8, 2.0), (16, 12, 0.5)]
)
def test_chances_of_the_race_are_as_computed(num_experts: int, top_k: int, exponent: float) -> None:
    weights, tokens = power_law_weights(num_experts, exponent), 40_000
    loads = expert_loads(
        np.random.default_rng(0), weights, top_k=top_k, sequences=tokens // 100, draws=100
    )
    chances = chosen_chances(weights, top_k)
    assert chances.sum() == pytest.approx(top_k)
    np.testing.assert_allclose(loads.sum(axis=0) / tokens, chances, atol=4.5 * 0.5 / 200)


def test_one_expert_of_many_is_chosen_by_its_weight_and_equal_ones_equally() -> None:
    weights = power_law_weights(32, 1.3)
    np.testing.assert_allclose(chosen_chances(weights, 1), weights / weights.sum(), rtol=1e-9)
    np.testing.assert_allclose(chosen_chances(np.ones(64), 8), 8 / 64, rtol=1e-9)
    assert chosen_chances([1.0, 0.0, 2.0], 2).tolist() == [1.0, 0.0, 1.0]


def test_measured_loads_are_met_again() -> None:
    chances = chosen_chances(power_law_weights(64, 1.0), 8)
    again = chosen_chances(measured_weights(1000 * chances, 8), 8)
    np.testing.assert_allclose(again, chances, rtol=0.02)
    alone = measured_weights([3.0, 1.0], 1)
    assert chosen_chances(alone, 1).tolist() == pytest.approx([0.75, 0.25])


def test_beta_weights_have_the_mean_and_the_variance_of_the_law() -> None:
    weights = beta_weights(np.random.default_rng(0), 256, 8, 14.0, draws=400)
    chances = -np.expm1(-weights)
    rho = 8 / 256
    assert chances.mean() == pytest.approx(rho, rel=1e-6)
    assert chances.var() == pytest.approx(rho * (1 - rho) / 15, rel=0.05)


def test_a_sequence_that_never_is_fresh_repeats_its_first_choice() -> None:
    loads = expert_loads(
        np.random.default_rng(0), np.ones(64), top_k=8, sequences=1, tokens_each=4, draws=50, fresh_share=0.0,
    )  # fmt: skip
    assert set(np.unique(loads)) == {0, 4}


def test_half_fresh_tokens_repeat_half_of_the_time() -> None:
    loads = expert_loads(
        np.random.default_rng(0), np.ones(512), top_k=1, sequences=1, tokens_each=2, draws=20_000, fresh_share=0.5,
    )  # fmt: skip
    assert (loads.max(axis=1) == 2).mean() == pytest.approx(0.5 + 0.5 / 512, abs=0.015)


def test_popular_experts_at_known_places_activate_as_computed() -> None:
    weights = power_law_weights(32, 1.0)
    place = placement.linear(32, ranks=4)
    sample = simulate_ranks(np.random.default_rng(0), place, weights, top_k=4, sequences=6, draws=20_000)  # fmt: skip
    chances = chosen_chances(weights, 4)
    expected = expected_activated_by_rank(chances, place, 6)
    # Experts of one token exclude each other, tokens do not: so is 1 - (1 - p)^t.
    assert expected.sum() == pytest.approx(np.sum(1 - (1 - chances) ** 6))
    assert abs(sample.activated_mean.mean - expected.mean()) < 4.5 * sample.activated_mean.error
    assert sample.activated_max.mean > expected.max()


def test_replicas_take_tokens_in_turn() -> None:
    weights = power_law_weights(16, 1.2)
    chances = chosen_chances(weights, 4)
    place = balanced([chances], ranks=4, redundant=8)
    sample = simulate_ranks(np.random.default_rng(0), place, weights, top_k=4, sequences=3, draws=20_000)  # fmt: skip
    expected = expected_activated_by_rank(chances, place, 3).mean()
    assert abs(sample.activated_mean.mean - expected) < 4.5 * sample.activated_mean.error
    linear = simulate_ranks(
        np.random.default_rng(0), placement.linear(16, ranks=4), weights, top_k=4, sequences=3, draws=5000,
    )  # fmt: skip
    assert sample.load_imbalance.mean < 0.8 * linear.load_imbalance.mean
    assert sample.load_mean == linear.load_mean == 3.0


def test_a_choice_that_is_repeated_wakes_every_replica() -> None:
    """Turns go by a token's place: physical experts are counted apart, logical ones once."""
    everywhere = balanced(np.ones((1, 8)), ranks=2, redundant=8)
    for each, physical in ((1, 4), (2, 8)):
        sample = simulate_ranks(
            np.random.default_rng(0), everywhere, np.ones(8), top_k=4, sequences=1, draws=20, tokens_each=each, fresh_share=0.0,
        )  # fmt: skip
        assert sample.logical.mean == 4.0
        assert sample.activated_mean.mean == physical / 2


def test_every_rank_takes_turns_for_its_own_tokens() -> None:
    assert turns(5, 1, 2).tolist() == [0, 1, 2, 1, 2]
    assert turns(2, 3, 3).tolist() == [0, 1, 2, 1, 2, 3]


def test_an_order_says_who_is_popular() -> None:
    assert power_law_weights(3, 1.0, order=[2, 0, 1]).tolist() == [1 / 2, 1 / 3, 1.0]


def test_impossible_arguments_are_refused() -> None:
    rng, place = np.random.default_rng(0), placement.linear(4, ranks=2)
    with pytest.raises(ValueError, match="order must hold each of 3 experts once"):
        power_law_weights(3, 1.0, order=[0, 0, 1])
    with pytest.raises(ValueError, match="more than 1/2"):
        measured_weights([5.0, 1.0, 1.0], 2)
    with pytest.raises(ValueError, match="loads must be >= 0 with some above 0"):
        measured_weights([0.0, 0.0], 1)
    with pytest.raises(ValueError, match="at least top_k 2 of them above 0"):
        draw_choices(rng, [1.0, 0.0, 0.0], top_k=2, draws=1, tokens=1)
    with pytest.raises(ValueError, match="at least top_k 2 of them above 0"):
        chosen_chances([1.0, 0.0, 0.0], 2)
    with pytest.raises(ValueError, match="draws at least 2"):
        simulate_ranks(rng, place, np.ones(4), top_k=1, sequences=1, draws=1)
