"""Popularity and correlation make fewer experts, between top_k and the uniform law."""

from __future__ import annotations

import numpy as np
import pytest

from moesd_dist.theory.experts import expected_activated_experts
from moesd_dist.theory.routing_law import UNIFORM, RoutingLaw

REAL = RoutingLaw(popularity=14.0, fresh_share=0.8)
BATCHES = np.array([1, 2, 4, 8, 16, 32, 64, 128, 1000])


@pytest.mark.parametrize(("num_experts", "top_k"), [(64, 8), (8, 2), (256, 8), (60, 4), (8, 8)])
def test_the_uniform_law_is_the_limit(num_experts: int, top_k: int) -> None:
    found = UNIFORM.activated_experts(num_experts, top_k, BATCHES, 4)
    expected = expected_activated_experts(num_experts, top_k, BATCHES * 4)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    nearly = RoutingLaw(popularity=1e7, fresh_share=1.0)
    close = nearly.activated_experts(num_experts, top_k, BATCHES, 4)
    np.testing.assert_allclose(close, expected, rtol=1e-3)


def test_one_token_wakes_exactly_top_k() -> None:
    for top_k in (1, 4, 8, 64):
        assert REAL.activated_experts(64, top_k, 1, 1) == pytest.approx(top_k)


def test_popularity_is_a_mean_over_experts_of_beta_distributed_chances() -> None:
    random = np.random.default_rng(0)
    kappa, rho, tokens = 14.0, 8 / 64, 24.0
    chances = random.beta(kappa * rho, kappa * (1 - rho), size=400_000)
    expected = 64 * np.mean(1 - (1 - chances) ** tokens)
    law = RoutingLaw(popularity=kappa, fresh_share=1.0)
    assert law.activated_experts(64, 8, 24, 1) == pytest.approx(expected, rel=5e-3)


def test_neighbours_that_repeat_one_another_count_once() -> None:
    repeated = RoutingLaw(popularity=14.0, fresh_share=0.0)
    np.testing.assert_allclose(
        repeated.activated_experts(64, 8, BATCHES, 6), repeated.activated_experts(64, 8, BATCHES, 1)
    )


def test_real_text_lies_between_top_k_and_the_uniform_law_and_grows() -> None:
    found = REAL.activated_experts(64, 8, BATCHES, 4)
    assert (np.diff(found) > 0).all()
    assert (found < expected_activated_experts(64, 8, BATCHES * 4)).all()
    assert (found > 8).all()
    assert found[-1] == pytest.approx(64, abs=1)


def test_each_point_may_have_its_own_top_k() -> None:
    both = REAL.activated_experts(64, np.array([4, 8]), 16, 2)
    assert both.tolist() == [
        float(REAL.activated_experts(64, 4, 16, 2)),
        float(REAL.activated_experts(64, 8, 16, 2)),
    ]


def test_a_dense_model_wakes_none() -> None:
    assert REAL.activated_experts(0, 0, BATCHES, 4).tolist() == [0.0] * len(BATCHES)


@pytest.mark.parametrize(
    ("popularity", "fresh_share", "message"),
    [
        pytest.param(0.0, 0.5, "popularity must be positive, got 0", id="popularity"),
        pytest.param(1.0, 1.5, r"fresh_share must lie in \[0, 1\], got 1.5", id="share"),
    ],
)
def test_impossible_laws_are_refused(popularity: float, fresh_share: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RoutingLaw(popularity=popularity, fresh_share=fresh_share)


def test_more_experts_per_token_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match=r"top_k must lie in 1..8, got 9"):
        REAL.activated_experts(8, 9, 1, 1)
