"""MoESD's model against the formulas written out, its limits, and its two toggles."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moesd_dist.theory.moesd.forward_time import (
    Denominator,
    MoesdParameters,
    draft_seconds,
    predicted_speedup,
    reject_seconds,
    target_seconds,
)
from moesd_dist.theory.moesd.points import Observations, Points, Verified
from moesd_dist.theory.speedup import RoundTimes, speedup

PARAMETERS = MoesdParameters(
    bias=3e-3,
    k1=1e-3,
    k2=2e-4,
    k3=5e-4,
    draft_bias=1e-3,
    draft_k=2e-4,
    reject_bias=1e-4,
    reject_k=1e-5,
    lam=0.3,
    s=1.02,
)
# Both sides of the knee at 0.3 * 100 tokens, for the batch, the verified tokens and the load.
POINTS = Points(
    batch_size=[1, 8, 20, 40, 200],
    gamma=[2, 4, 3, 2, 4],
    top_k=[8, 2, 64, 1, 32],
    sigma=[0.9, 0.8, 0.7, 0.95, 0.6],
    num_experts=64,
    ridge_point=100.0,
)
BATCHES = np.array([1.0, 30.0, 400.0])


def points(**changes: Any) -> Points:
    names = ("batch_size", "gamma", "top_k", "sigma", "num_experts", "ridge_point")
    return Points(**{name: getattr(POINTS, name) for name in names} | changes)


def by_hand(top_k: float, tokens: float) -> float:
    """Seconds of a target forward, as theory.md prints them, in plain Python."""
    knee = PARAMETERS.lam * 100.0

    def grown(count: float) -> float:
        if count <= knee:
            return PARAMETERS.s**count
        return PARAMETERS.s**knee * (1 + math.log(PARAMETERS.s) * (count - knee))

    activated = 64 * (1 - (1 - top_k / 64) ** tokens)
    dense = PARAMETERS.bias + PARAMETERS.k1 * grown(tokens)
    return dense + PARAMETERS.k2 * activated + PARAMETERS.k3 * grown(tokens * top_k / activated)


@pytest.mark.parametrize("top_k", [1, 8, 64])
@pytest.mark.parametrize("tokens", [1, 29, 31, 5000])
def test_a_target_forward_is_the_papers_sum(top_k: int, tokens: int) -> None:
    found = target_seconds(PARAMETERS, tokens, top_k=top_k, num_experts=64, ridge_point=100.0)
    assert found == pytest.approx([by_hand(top_k, tokens)], rel=1e-12)


def test_a_target_forward_takes_each_points_own_top_k() -> None:
    top_k = np.array([8.0, 1.0, 8.0])
    found = target_seconds(PARAMETERS, BATCHES, top_k=top_k, num_experts=64, ridge_point=100.0)
    expected = [by_hand(*pair) for pair in zip(top_k, BATCHES, strict=True)]
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_draft_step_and_a_rejection_are_the_papers_sums() -> None:
    knee = 1.02**30
    growths = np.array([1.02, knee, knee * (1 + math.log(1.02) * 370)])
    draft = draft_seconds(PARAMETERS, BATCHES, ridge_point=100.0)
    assert draft == pytest.approx(1e-3 + 2e-4 * growths, rel=1e-12)
    assert reject_seconds(PARAMETERS, BATCHES) == pytest.approx(1e-4 + 1e-5 * BATCHES, rel=1e-12)


@pytest.mark.parametrize(
    ("verified", "extra"),
    [
        pytest.param(Verified.GAMMA, 0, id="the paper verifies the drafts"),
        pytest.param(Verified.GAMMA_PLUS_ONE, 1, id="engines verify one token more"),
    ],
)
def test_a_speedup_is_eq_4_of_the_three_times(verified: Verified, extra: int) -> None:
    found = predicted_speedup(PARAMETERS, POINTS, verified=verified)
    for place, predicted in enumerate(found):
        batch, gamma, top_k, sigma = (
            np.asarray(getattr(POINTS, name))[place]
            for name in ("batch_size", "gamma", "top_k", "sigma")
        )
        times = RoundTimes(
            target_decode_s=by_hand(top_k, batch),
            target_verify_s=by_hand(top_k, batch * (gamma + extra)),
            draft_step_s=draft_seconds(PARAMETERS, batch, ridge_point=100.0)[0],
            reject_s=reject_seconds(PARAMETERS, batch)[0],
        )
        assert predicted == pytest.approx(speedup(sigma, int(gamma), times), rel=1e-12)


def test_the_defaults_are_the_papers_model_with_eq_4() -> None:
    spelled = predicted_speedup(
        PARAMETERS, POINTS, verified=Verified.GAMMA, denominator=Denominator.EQ_4
    )
    assert predicted_speedup(PARAMETERS, POINTS).tolist() == spelled.tolist()


def test_one_more_verified_token_costs_speedup() -> None:
    engine = predicted_speedup(PARAMETERS, POINTS, verified=Verified.GAMMA_PLUS_ONE)
    assert np.all(engine < predicted_speedup(PARAMETERS, POINTS))


def test_one_more_verified_token_is_free_where_forwards_cost_the_same() -> None:
    flat = replace(PARAMETERS, k2=0.0, s=1.0)
    engine = predicted_speedup(flat, POINTS, verified=Verified.GAMMA_PLUS_ONE)
    assert engine == pytest.approx(predicted_speedup(flat, POINTS), rel=1e-12)


def test_line_11_differs_by_a_plain_step_and_the_missing_draft_steps() -> None:
    batch, gamma = np.asarray(POINTS.batch_size), np.asarray(POINTS.gamma)
    ar = target_seconds(PARAMETERS, batch, top_k=POINTS.top_k, num_experts=64, ridge_point=100.0)
    paid = np.asarray(POINTS.sigma) * (gamma + 1) * ar
    printed = paid / predicted_speedup(PARAMETERS, POINTS, denominator=Denominator.LINE_11)
    right = paid / predicted_speedup(PARAMETERS, POINTS)
    draft = draft_seconds(PARAMETERS, batch, ridge_point=100.0)
    assert printed - right == pytest.approx(ar - (gamma - 1) * draft, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-3, 7.0])
def test_one_scale_of_all_times_leaves_every_speedup(scale: float) -> None:
    names = [name for name in PARAMETERS.__slots__ if name not in ("lam", "s")]
    scaled = replace(PARAMETERS, **{name: scale * getattr(PARAMETERS, name) for name in names})
    found = predicted_speedup(scaled, POINTS)
    assert found == pytest.approx(predicted_speedup(PARAMETERS, POINTS), rel=1e-12)


def test_with_s_one_k1_and_k3_are_bias() -> None:
    flat = replace(PARAMETERS, s=1.0)
    merged = replace(flat, bias=flat.bias + flat.k1 + flat.k3, k1=0.0, k3=0.0)
    found = predicted_speedup(merged, POINTS)
    assert found == pytest.approx(predicted_speedup(flat, POINTS), rel=1e-12)


@pytest.mark.parametrize(
    ("top_k", "rises"),
    [
        pytest.param(8, 4, id="a sparse model gains until batch 16"),
        pytest.param(64, 0, id="a dense one only loses"),
    ],
)
def test_speedup_rises_with_the_batch_and_then_falls(top_k: int, rises: int) -> None:
    sizes = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 512])
    same = np.ones(sizes.size)
    curve = points(batch_size=sizes, gamma=4 * same, top_k=top_k * same, sigma=0.9 * same)
    signs = np.sign(np.diff(predicted_speedup(PARAMETERS, curve)))
    assert signs.tolist() == [1.0] * rises + [-1.0] * (9 - rises)


def test_a_growth_beyond_a_double_times_a_tiny_k_is_a_time() -> None:
    # G is 2^2000 there, 1e602; k1 is 1e-300 and brings a plain step of 1000 tokens to 10 s.
    steep = replace(PARAMETERS, k1=1e-300, k3=0.0, draft_k=0.0, s=2.0, lam=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = target_seconds(steep, 1000, top_k=1, num_experts=10**6, ridge_point=2000.0)
    rest = steep.bias + steep.k2 * 10**6 * -math.expm1(1000 * math.log1p(-1e-6))
    assert found[0] == pytest.approx(rest + 10 ** (1000 * math.log10(2) - 300), rel=1e-9)


def test_a_time_beyond_a_double_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a term must stay below exp.* at s 2.0; use s closer"):
        target_seconds(
            replace(PARAMETERS, s=2.0, lam=1.0), 2000, top_k=8, num_experts=64, ridge_point=2000.0
        )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        pytest.param("k1", -1e-9, "k1 must be finite and at least 0, got -1e-09", id="negative"),
        pytest.param("bias", math.nan, "bias must be finite and at least 0, got nan", id="nan"),
        pytest.param("lam", 0.0, "lam must be finite and positive, got 0.0", id="no knee"),
        pytest.param("s", 0.99, "s must be finite and at least 1, got 0.99", id="shrinking"),
    ],
)
def test_impossible_parameters_are_refused(name: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PARAMETERS, **{name: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"gamma": [2, 4]}, r"gamma holds one number per point, got shape \(2,\)"),
        pytest.param({"batch_size": 4}, r"batch_size holds one number per point, got shape \(\)"),
        pytest.param({"gamma": [0, 4, 3, 2, 4]}, "gamma must be a whole number from 1 on, got 0.0"),
        pytest.param({"top_k": [8, 2, 65, 1, 32]}, "top_k 65 exceeds num_experts 64; use 1..64"),
        pytest.param({"batch_size": [1, 2, 2.5, 4, 5]}, "batch_size must be a whole number"),
        pytest.param({"sigma": [0.9, 0.1, 0.7, 0.95, 0.6]}, r"got 0.1 at gamma 4; use acceptance"),
        pytest.param({"ridge_point": 0.0}, "ridge_point must be positive and finite, got 0.0"),
    ],
)
def test_impossible_points_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        points(**changes)


def test_a_speedup_of_nothing_is_refused() -> None:
    names = ("batch_size", "gamma", "top_k", "sigma", "num_experts", "ridge_point")
    with pytest.raises(ValueError, match=r"a speedup is positive and finite, got 0\.0"):
        Observations(**{name: getattr(POINTS, name) for name in names}, speedup=[1, 1, 0, 1, 1])


@pytest.mark.parametrize("write", [lambda array: array.fill(0), lambda array: array.sort()])
def test_the_arrays_of_a_record_are_its_own(write: Callable[[np.ndarray], None]) -> None:
    mine = np.array([1.0, 8.0, 20.0, 40.0, 200.0])
    kept = points(batch_size=mine)
    mine.fill(7.0)
    assert np.asarray(kept.batch_size).tolist() == [1.0, 8.0, 20.0, 40.0, 200.0]
    with pytest.raises(ValueError, match="read-only"):
        write(np.asarray(kept.batch_size))
