"""Whole grids of points: the same numbers as one by one, popularity and repeats as simulated."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from moesd_dist.theory.expert_parallel import placement
from moesd_dist.theory.expert_parallel.activation import expected_busiest_activated
from moesd_dist.theory.expert_parallel.load import expected_busiest_load
from moesd_dist.theory.expert_parallel.popularity import beta_weights
from moesd_dist.theory.expert_parallel.rank_law import RankExpectation, rank_expectation
from moesd_dist.theory.expert_parallel.simulation import simulate_ranks
from moesd_dist.theory.routing_law import UNIFORM, RoutingLaw

REAL = RoutingLaw(popularity=13.4, fresh_share=0.8)  # of the embedded pair's code
FIELDS = ("activated_mean", "activated_max", "load_mean", "load_max")


def test_tokens_are_those_of_all_ranks_together() -> None:
    found = rank_expectation(num_experts=256, top_k=8, ranks=32, sequences=64, tokens_each=4)
    assert found.activated_max == pytest.approx(expected_busiest_activated(256, 8, 32, 256))
    assert found.load_max == pytest.approx(expected_busiest_load(256, 8, 32, 256))
    assert found.load_mean == pytest.approx(256 * 8 / 32)
    assert found.activated_mean == pytest.approx(UNIFORM.activated_experts(256, 8, 64, 4) / 32)


@pytest.mark.parametrize("routing", [UNIFORM, REAL], ids=["uniform", "real"])
def test_a_grid_gives_what_its_points_give(routing: RoutingLaw) -> None:
    top_k, ranks = np.array([4, 8])[:, None, None], np.array([1, 3, 64])[:, None]
    batch, each = np.array([1, 7, 100]), np.array([1, 4, 8])
    grid = rank_expectation(
        num_experts=64, top_k=top_k, ranks=ranks, sequences=batch, tokens_each=each, routing=routing
    )
    for name in FIELDS:
        assert getattr(grid, name).shape == (2, 3, 3)
    one = rank_expectation(
        num_experts=64, top_k=8, ranks=3, sequences=7, tokens_each=4, routing=routing
    )
    for name in FIELDS:
        assert getattr(grid, name)[1, 1, 1] == pytest.approx(getattr(one, name), rel=1e-12)


@pytest.mark.parametrize("routing", [UNIFORM, REAL], ids=["uniform", "real"])
def test_one_rank_has_the_mean(routing: RoutingLaw) -> None:
    batch = np.array([1, 2, 5, 40, 1000])
    found = rank_expectation(
        num_experts=128, top_k=8, ranks=1, sequences=batch, tokens_each=4, routing=routing
    )
    np.testing.assert_allclose(found.activated_max, found.activated_mean, rtol=1e-9)
    np.testing.assert_allclose(found.load_max, found.load_mean, rtol=1e-9)
    np.testing.assert_allclose(
        found.activated_mean, routing.activated_experts(128, 8, batch, 4), rtol=1e-12
    )


def test_tokens_that_repeat_one_another_weigh_more_and_wake_no_more() -> None:
    repeated = RoutingLaw(popularity=math.inf, fresh_share=0.0)
    ranks = np.array([2, 8, 64])
    four = rank_expectation(
        num_experts=64, top_k=8, ranks=ranks, sequences=5, tokens_each=4, routing=repeated
    )
    one = rank_expectation(num_experts=64, top_k=8, ranks=ranks, sequences=5, tokens_each=1)
    np.testing.assert_allclose(four.activated_max, one.activated_max, rtol=1e-9)
    np.testing.assert_allclose(four.load_max, 4 * one.load_max, rtol=1e-9)


@pytest.mark.parametrize("ranks", [4, 32, 64])
@pytest.mark.parametrize(("sequences", "tokens_each"), [(2, 4), (16, 4), (100, 1)])
def test_popularity_and_repeats_agree_with_simulated_routing(
    ranks: int, sequences: int, tokens_each: int
) -> None:
    rng, draws = np.random.default_rng(0), 3000
    sample = simulate_ranks(
        rng,
        placement.linear(64, ranks=ranks),
        beta_weights(rng, 64, 8, REAL.popularity, draws),
        top_k=8,
        sequences=sequences,
        tokens_each=tokens_each,
        fresh_share=REAL.fresh_share,
        draws=draws,
    )
    found = rank_expectation(
        num_experts=64, top_k=8, ranks=ranks, sequences=sequences, tokens_each=tokens_each, routing=REAL,
    )  # fmt: skip
    assert found.activated_mean == pytest.approx(sample.activated_mean.mean, rel=0.01)
    assert found.activated_max == pytest.approx(sample.activated_max.mean, rel=0.02)
    assert found.load_max == pytest.approx(sample.load_max.mean, rel=0.02)
    assert found.load_imbalance == pytest.approx(sample.load_imbalance.mean, rel=0.02)


def test_popularity_leaves_fewer_experts_active_and_the_busiest_with_more_load() -> None:
    where = {"num_experts": 256, "top_k": 8, "ranks": 32, "sequences": 128, "tokens_each": 4}
    even, real = rank_expectation(**where), rank_expectation(**where, routing=REAL)
    assert real.activated_max < even.activated_max
    assert real.load_max > even.load_max
    assert real.load_imbalance > even.load_imbalance > 1.0
    assert real.activation_imbalance > even.activation_imbalance >= 1.0


def test_nothing_comes_of_no_sequences_and_of_a_dense_model() -> None:
    for found in (
        rank_expectation(num_experts=64, top_k=8, ranks=4, sequences=0, tokens_each=4),
        rank_expectation(num_experts=64, top_k=64, ranks=4, sequences=0, tokens_each=1),
        rank_expectation(num_experts=0, top_k=0, ranks=4, sequences=9, tokens_each=4),
    ):
        assert [float(getattr(found, name)) for name in FIELDS] == [0.0] * 4
        assert found.load_imbalance == found.activation_imbalance == 1.0


@pytest.mark.parametrize("routing", [UNIFORM, REAL], ids=["uniform", "real"])
def test_a_hundred_thousand_points_take_seconds(routing: RoutingLaw) -> None:
    rng, started = np.random.default_rng(0), time.process_time()
    found = [_points(rng, num_experts, routing) for num_experts in (64, 128, 256, 384)]
    assert time.process_time() - started < 10.0  # measured: 0.8
    for points in found:
        assert (points.activated_max >= points.activated_mean * (1 - 1e-12)).all()
        assert (points.load_max >= points.load_mean * (1 - 1e-9)).all()


def _points(rng: np.random.Generator, num_experts: int, routing: RoutingLaw) -> RankExpectation:
    return rank_expectation(
        num_experts=num_experts,
        top_k=8,
        ranks=2 ** rng.integers(0, 10, 25_000),
        sequences=2 ** rng.integers(0, 15, 25_000),
        tokens_each=rng.integers(1, 9, 25_000),
        routing=routing,
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param({"ranks": 0}, "ranks must be at least 1, got 0", id="ranks"),
        pytest.param({"sequences": -1}, "sequences must be >= 0, got -1", id="sequences"),
        pytest.param({"tokens_each": -2}, "tokens_each must be >= 0, got -2", id="tokens"),
        pytest.param({"top_k": 65}, r"top_k must lie in 1..64, got 65", id="top_k"),
    ],
)
def test_impossible_points_are_refused(changed: dict[str, int], message: str) -> None:
    point = {"top_k": 8, "ranks": 2, "sequences": 1, "tokens_each": 1} | changed
    with pytest.raises(ValueError, match=message):
        rank_expectation(num_experts=64, **point)
