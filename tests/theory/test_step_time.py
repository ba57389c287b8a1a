"""The law of a forward: its limits, its terms, and what a data sheet makes of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from moesd_dist.theory.steps.drift import Groups, drift_share
from moesd_dist.theory.steps.law import Forwards, Rates, forward_seconds, joined
from moesd_dist.theory.steps.log_fit import Link, Prior, fit_logs
from tests.theory.known_steps import MODEL, TARGET

FREE = Rates(
    forward_s=0.0,
    expert_s=0.0,
    token_s=0.0,
    sequence_s=0.0,
    bytes_per_s=1e15,
    flops=1e18,
    expert_flops=1e18,
    overlap=math.inf,
)
ONE = Forwards(
    sequences=3.0, tokens_each=4.0, context_tokens=100.0, activated_experts=20.0, top_k=8.0
)


@pytest.mark.parametrize(
    ("rate", "seconds"),
    [
        pytest.param({"forward_s": 2e-3}, 2e-3, id="once a forward"),
        pytest.param({"token_s": 1e-3}, 12e-3, id="per token: 3 x 4"),
        pytest.param({"sequence_s": 1e-3}, 3e-3, id="per sequence"),
        pytest.param({"expert_s": 1e-3}, 80e-3, id="per activated expert and layer: 20 x 4"),
        pytest.param(
            {"bytes_per_s": 1e9},
            (9_000_000 + 4 * 20 * 3_145_728 + 2048 * 300) * 2 / 1e9,
            id="weights once, experts that are awake, the cache",
        ),
        pytest.param({"flops": 1e9}, 2 * 9_000_000 * 12 / 1e9, id="dense products of 12 tokens"),
        pytest.param(
            {"expert_flops": 1e9},
            2 * 4 * 8 * 3_145_728 * 12 / 1e9,
            id="expert products of 12 tokens",
        ),
    ],
)
def test_each_term_alone(rate: dict[str, float], seconds: float) -> None:
    found = forward_seconds(TARGET, replace(FREE, **rate), ONE)
    assert found == pytest.approx(seconds, rel=1e-3, abs=2e-6)


def test_joining_adds_at_one_and_takes_the_longer_at_infinity() -> None:
    assert joined(3.0, 4.0, 1.0) == pytest.approx(7.0)
    assert joined(3.0, 4.0, 2.0) == pytest.approx(5.0)
    assert joined(3.0, 4.0, math.inf) == 4.0
    assert joined(0.0, 0.0, 1.5) == 0.0
    assert joined(np.array([1e-300, 1.0]), 1.0, 50.0) == pytest.approx([1.0, 2 ** (1 / 50)])


def test_more_work_never_takes_less_time() -> None:
    batches = np.arange(1.0, 200.0)
    forwards = replace(ONE, sequences=batches, activated_experts=np.minimum(64.0, 8 * batches))
    assert (np.diff(forward_seconds(TARGET, MODEL.target_rates, forwards)) > 0).all()


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        pytest.param({"overlap": 0.5}, "overlap must be at least 1, got 0.5", id="overlap"),
        pytest.param({"bytes_per_s": 0.0}, "bytes_per_s must be positive", id="no bandwidth"),
        pytest.param({"token_s": -1.0}, "token_s must be 0 or more", id="negative time"),
    ],
)
def test_impossible_rates_are_refused(rate: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(FREE, **rate)


@pytest.mark.parametrize("link", list(Link))
def test_a_parameter_never_leaves_its_range(link: Link) -> None:
    prior = Prior(name="x", centre={"log": 3.0, "above_one": 1.5, "logit": 0.3}[link.value], spread=2.0, link=link)  # fmt: skip
    low = {"log": 0.0, "above_one": 1.0, "logit": 0.0}[link.value]
    values = [prior.at(offset) for offset in (-1e9, -3.0, 0.0, 3.0, 1e9)]
    assert values == sorted(values)
    assert values[0] >= low
    assert values[2] == pytest.approx(prior.centre)
    assert all(map(math.isfinite, values))
    if link is Link.LOGIT:
        assert values[-1] <= 1.0


def test_without_data_in_its_favour_a_parameter_stays_at_its_prior() -> None:
    priors = [Prior(name="a", centre=2.0, spread=1.0), Prior(name="b", centre=5.0, spread=1.0)]
    x = np.linspace(1.0, 2.0, 30)
    fit = fit_logs(lambda v: v["a"] * x, 7.0 * x, priors)
    assert fit.values["a"] == pytest.approx(7.0, rel=1e-4)
    assert fit.values["b"] == pytest.approx(5.0)
    assert fit.learned("a") > 0.999
    assert fit.learned("b") == pytest.approx(0.0, abs=1e-9)
    low, high = fit.interval("b")
    assert low < 5.0 / math.e < 5.0 * math.e < high


def test_a_value_that_is_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="positive finite values, got 0"):
        fit_logs(
            lambda v: v["a"] * np.ones(2), [1.0, 0.0], [Prior(name="a", centre=1.0, spread=1.0)]
        )


def test_whitening_makes_a_group_independent() -> None:
    groups, ratio = Groups([0, 0, 0, 1, 1]), 4.0
    root = groups.whiten(np.eye(5), ratio)
    covariance = np.eye(5)
    covariance[:3, :3] += ratio
    covariance[3:, 3:] += ratio
    np.testing.assert_allclose(root @ covariance @ root.T, np.eye(5), atol=1e-12)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 9.0])
def test_the_share_of_the_drift_is_found(ratio: float) -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(400), 4)
    residuals = (
        random.standard_normal(1600) + math.sqrt(ratio) * random.standard_normal(400)[labels]
    )
    assert drift_share(Groups(labels), residuals) == pytest.approx(ratio, rel=0.2, abs=0.1)
