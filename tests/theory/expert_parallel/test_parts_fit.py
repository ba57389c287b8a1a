"""Rates from forwards whose experts were timed apart, found again from a model that is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moesd_dist.theory.expert_parallel.parts_fit import Parts, fit_parts
from moesd_dist.theory.steps.law import Forwards, expert_seconds, forward_seconds
from moesd_dist.theory.steps.rates import rates_from
from tests.theory.known_steps import MODEL, TARGET

BATCH = np.array([1.0, 2, 4, 8, 16, 32, 64])
EACH = np.tile([1.0, 2.0, 4.0], (7, 1))
SEQUENCES = np.repeat(BATCH, 3)
TOKENS = EACH.ravel()


def forwards(sequences=SEQUENCES, each=TOKENS) -> Forwards:
    activated = MODEL.routing.activated_experts(64, 8.0, sequences, each)
    return Forwards(
        sequences=sequences,
        tokens_each=each,
        context_tokens=np.full_like(each, 150.0),
        activated_experts=activated,
        top_k=np.full_like(each, 8.0),
    )


def parts(noise: float = 0.0) -> Parts:
    given, rng = forwards(), np.random.default_rng(0)
    rest = forward_seconds(
        TARGET, MODEL.target_rates, replace(given, activated_experts=0.0, top_k=0.0)
    )
    experts = expert_seconds(
        TARGET, MODEL.target_rates, given.activated_experts, 8.0 * SEQUENCES * TOKENS
    )
    shake = np.exp(noise * rng.standard_normal((2, len(rest))))
    return Parts(
        forwards=given,
        rest_s=rest * shake[0],
        expert_s=experts * shake[1],
        groups=np.repeat(np.arange(7.0), 3),
    )


@pytest.mark.parametrize("noise", [0.0, 0.02], ids=["exact", "2 % noise"])
def test_both_sides_of_a_forward_are_found(noise):
    fit = fit_parts(TARGET, parts(noise))
    rates, given = rates_from(fit.values), forwards()
    rest = forward_seconds(TARGET, rates, replace(given, activated_experts=0.0, top_k=0.0))
    experts = expert_seconds(TARGET, rates, given.activated_experts, 8.0 * SEQUENCES * TOKENS)
    assert rest == pytest.approx(parts().rest_s, rel=0.01 + 2 * noise)
    assert experts == pytest.approx(parts().expert_s, rel=0.01 + 2 * noise)


def test_half_of_the_experts_cost_what_the_known_model_says():
    """What a forecast needs: fewer experts and pairs than any forward of one rank with such a batch."""
    rates = rates_from(fit_parts(TARGET, parts(0.01)).values)
    activated, pairs = np.array([10.0, 30.0]), np.array([64.0, 512.0])
    found = expert_seconds(TARGET, rates, activated, pairs)
    assert found == pytest.approx(
        expert_seconds(TARGET, MODEL.target_rates, activated, pairs), rel=0.05
    )


def test_forwards_whose_experts_were_not_timed_are_refused():
    given = parts()
    with pytest.raises(ValueError, match="experts were timed apart: engine=transformers"):
        replace(given, expert_s=np.zeros_like(given.expert_s))
