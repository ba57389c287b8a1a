"""Ranks with experts of measured popularity, held against brute force and against the uniform law."""

from __future__ import annotations

import numpy as np
import pytest

from moesd_dist.theory.expert_parallel import placement as placements
from moesd_dist.theory.expert_parallel.balanced import balanced
from moesd_dist.theory.expert_parallel.collectives import Link, Links
from moesd_dist.theory.expert_parallel.popular_step import (
    PopularEpModel,
    Routing,
    fresh_share,
    simulated,
)
from moesd_dist.theory.expert_parallel.rank_law import rank_expectation
from moesd_dist.theory.expert_parallel.round_parts import EpGrid
from moesd_dist.theory.expert_parallel.step import EpModel
from tests.theory.known_steps import MODEL, TARGET

EXPERTS, TOP_K, LAYERS = 64, 8, 2
EVEN = np.full((LAYERS, EXPERTS), 1000.0)
SKEWED = np.tile(1000.0 * 0.96 ** np.arange(EXPERTS), (LAYERS, 1))


def routing(loads=EVEN, activated=None, share=1.0) -> Routing:
    return Routing(loads=loads, top_k=TOP_K, fresh_share=share, activated=activated or {})


def linear(ranks):
    return placements.linear(EXPERTS, ranks=ranks, layers=LAYERS)


def rng():
    return np.random.default_rng(1)


@pytest.mark.parametrize("shape", [(4, 1), (8, 4)], ids=["decoding", "verification"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_even_loads_are_the_uniform_law(shape, ranks):
    found = simulated(rng(), routing(), linear(ranks), shape)
    law = rank_expectation(
        num_experts=EXPERTS, top_k=TOP_K, ranks=ranks, sequences=shape[0], tokens_each=shape[1]
    )
    for name in ("activated_mean", "activated_max", "load_mean", "load_max"):
        assert getattr(found, name) == pytest.approx(float(getattr(law, name)), rel=0.03)


def test_popular_experts_side_by_side_make_their_rank_the_busiest():
    """Their rank has its share of the popularity: worked out without drawing anything."""
    found = simulated(rng(), routing(SKEWED), linear(2), (256, 4))
    share = SKEWED[0, : EXPERTS // 2].sum() / SKEWED[0].sum()
    assert float(found.load_imbalance) == pytest.approx(2 * share, rel=0.03)
    dealt = placements.round_robin(EXPERTS, ranks=2, layers=LAYERS)
    spread = simulated(rng(), routing(SKEWED), dealt, (256, 4))
    assert float(spread.load_imbalance) < float(found.load_imbalance)


def test_replicas_take_load_off_the_busiest_rank():
    loads = EVEN.copy()
    loads[:, 0] = 6000.0
    plain = simulated(rng(), routing(loads), linear(2), (64, 1))
    replicated = balanced(loads, ranks=2, redundant=2)
    found = simulated(rng(), routing(loads), replicated, (64, 1))
    assert float(found.load_imbalance) < float(plain.load_imbalance)
    assert float(found.load_mean) == float(plain.load_mean)


def test_measured_counts_are_kept_and_only_their_spread_is_simulated():
    free = simulated(rng(), routing(), linear(2), (4, 1))
    count = 0.9 * 2 * float(free.activated_mean)
    found = simulated(rng(), routing(activated={(4, 1): count}), linear(2), (4, 1))
    assert float(found.activated_mean) == pytest.approx(count / 2)
    assert float(found.activation_imbalance) == pytest.approx(float(free.activation_imbalance))


def test_measured_counts_are_of_logical_experts_and_ranks_have_physical_ones():
    replicated = balanced(SKEWED, ranks=2, redundant=16)
    free = simulated(rng(), routing(SKEWED), replicated, (4, 1))
    count = 0.9 * float(free.logical)
    found = simulated(rng(), routing(SKEWED, {(4, 1): count}), replicated, (4, 1))
    assert float(found.logical) == pytest.approx(count)
    assert float(found.activated_mean) == pytest.approx(0.9 * float(free.activated_mean))
    assert 2 * float(found.activated_mean) > 1.1 * count


def test_no_rank_has_more_experts_than_lie_on_it():
    found = simulated(rng(), routing(activated={(64, 4): 70.0}), linear(4), (64, 4))
    assert float(found.activated_max) == EXPERTS / 4


@pytest.mark.parametrize("share", [0.4, 0.8, 1.0])
def test_the_worth_of_a_further_token_is_found_from_counts(share):
    chances = TOP_K * SKEWED[0] / SKEWED[0].sum()
    activated = {
        (b, s): float((1 - (1 - chances) ** (b * (1 + (s - 1) * share))).sum())
        for b in (1, 4, 16)
        for s in (1, 2, 4)
    }
    assert fresh_share(SKEWED, TOP_K, activated) == pytest.approx(share, abs=2e-3)


def test_single_tokens_say_nothing_of_further_ones():
    assert fresh_share(SKEWED, TOP_K, {(4, 1): 20.0}) == 1.0


def test_a_table_stands_for_the_law_and_changes_nothing_else():
    grid = EpGrid(batch_size=[8.0], gamma=[3.0], top_k=8.0, context_tokens=100.0, ranks=2.0)
    links = Links(intra=Link(latency_s=1e-4, bytes_per_s=1e9), ranks_per_node=2)
    law = EpModel(step=MODEL, cost=links).round_seconds(grid)
    table = {
        ((8, s), 2): simulated(rng(), routing(activated={(8, s): n}), linear(2), (8, s))
        for s, n in ((1, 30.0), (4, 50.0))
    }
    found = PopularEpModel(step=MODEL, cost=links, table=table).round_seconds(grid)
    assert found.verify_work.activated_experts == pytest.approx([50.0])
    assert found.decode_work.activated_experts == pytest.approx([30.0])
    assert found.verify.communication_s == pytest.approx(law.verify.communication_s)
    assert found.verify.rest_s == pytest.approx(law.verify.rest_s)
    slower = {key: simulated(rng(), routing(), linear(2), key[0]) for key in table}
    more = PopularEpModel(step=MODEL, cost=links, table=slower).round_seconds(grid)
    assert more.verify.total_s > found.verify.total_s
    assert TARGET.num_experts == EXPERTS
