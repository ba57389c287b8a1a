"""A forward on ranks that share experts: one rank is the old law, and every cause moves its own part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moesd_dist.theory.counts import NO_MODEL
from moesd_dist.theory.expert_parallel.collectives import Link, Links
from moesd_dist.theory.expert_parallel.dispatch import Dispatch
from moesd_dist.theory.expert_parallel.step import EpGrid, EpModel, Packing
from moesd_dist.theory.routing_law import UNIFORM, RoutingLaw
from moesd_dist.theory.steps.model import Grid
from tests.theory.known_steps import MODEL, TARGET

LINKS = Links(
    intra=Link(latency_s=2e-5, bytes_per_s=5e9),
    inter=Link(latency_s=5e-5, bytes_per_s=1e9),
    ranks_per_node=2,
)
FREE_LINKS = Links(intra=Link(latency_s=0.0, bytes_per_s=np.inf), ranks_per_node=512)
EP = EpModel(step=MODEL, cost=LINKS)
GRID = {
    "batch_size": np.array([1, 3, 8, 32, 128])[:, None],
    "gamma": np.array([0, 1, 4]),
    "top_k": 8,
    "context_tokens": 60.0,
}


@pytest.mark.parametrize("routing", [MODEL.routing, UNIFORM], ids=["skewed", "uniform"])
def test_one_rank_is_the_step_model(routing: RoutingLaw) -> None:
    step = replace(MODEL, routing=routing)
    whole = step.round_seconds(Grid(**GRID))
    found = EpModel(step=step, cost=LINKS, packing=Packing(layer_s=1e-3, row_s=1e-6)).round_seconds(
        EpGrid(**GRID, ranks=1)
    )
    for name in (
        "target_decode_s",
        "target_verify_s",
        "draft_step_s",
        "reject_s",
        "step_s",
        "round_s",
    ):
        assert getattr(found.whole, name) == pytest.approx(getattr(whole, name), rel=1e-12)
    assert found.whole.verify_experts == pytest.approx(whole.verify_experts, rel=1e-12)
    assert found.speedup(0.8) == pytest.approx(whole.speedup(0.8), rel=1e-12)
    assert found.target_efficiency == pytest.approx(whole.target_efficiency, rel=1e-12)
    assert found.verify.imbalance_s == pytest.approx(np.zeros((5, 3)), abs=1e-12)
    assert not np.any(found.verify.communication_s)
    assert not np.any(found.verify.packing_s)


def test_whole_arrays_are_their_points_one_by_one() -> None:
    ranks = np.array([1, 2, 4, 8, 16])
    together = EP.round_seconds(
        EpGrid(batch_size=32, gamma=3, top_k=8, context_tokens=60.0, ranks=ranks)
    )
    for place, count in enumerate(ranks):
        one = EP.round_seconds(
            EpGrid(batch_size=32, gamma=3, top_k=8, context_tokens=60.0, ranks=count)
        )
        assert float(one.round_s) == pytest.approx(float(together.round_s[place]), rel=1e-9)


def test_a_rank_computes_for_its_share_of_the_sequences() -> None:
    grid = EpGrid(batch_size=10, gamma=2, top_k=8, context_tokens=60.0, ranks=4)
    found = replace(EP, cost=FREE_LINKS).round_seconds(grid)
    own = MODEL.round_seconds(Grid(batch_size=3, gamma=2, top_k=8, context_tokens=60.0))
    assert float(found.draft_step_s) == pytest.approx(float(own.draft_step_s))
    assert float(found.reject_s) == pytest.approx(float(own.reject_s))
    no_experts = replace(MODEL, target=replace(TARGET, num_moe_layers=0))
    alone = no_experts.round_seconds(Grid(batch_size=3, gamma=2, top_k=8, context_tokens=60.0))
    assert float(found.verify.rest_s) == pytest.approx(float(alone.target_verify_s))
    assert (float(found.verify_work.tokens), float(found.verify_work.most_tokens)) == (7.5, 9.0)


def test_the_layer_waits_for_the_busiest_rank() -> None:
    grid = EpGrid(batch_size=8, gamma=3, top_k=8, context_tokens=60.0, ranks=8)
    found = EP.target_seconds(grid, 4.0)
    assert found.imbalance_s > 0.0
    assert found.total_s == found.rest_s + found.experts_s + found.imbalance_s + (
        found.communication_s + found.packing_s
    )


def test_communication_is_three_collectives_a_layer_and_can_be_hidden() -> None:
    grid = EpGrid(batch_size=8, gamma=3, top_k=8, context_tokens=60.0, ranks=4)
    seconds, work = EP.target(grid, 4.0)
    sent = work.traffic
    expected = LINKS.counts_s(4) + LINKS.all_to_all_s(sent.dispatch_bytes, 4)
    expected = expected + LINKS.all_to_all_s(sent.combine_bytes, 4)
    assert float(seconds.communication_s) == pytest.approx(TARGET.num_moe_layers * float(expected))
    half = replace(EP, hidden_share=0.5).target_seconds(grid, 4.0)
    assert float(half.communication_s) == pytest.approx(0.5 * float(seconds.communication_s))
    others = ("rest_s", "experts_s", "imbalance_s", "packing_s")
    assert all(getattr(half, name) == getattr(seconds, name) for name in others)


def test_free_links_and_many_ranks_leave_the_rest_and_one_expert_after_another() -> None:
    ranks = np.array([1, 2, 4, 8, 16, 32, 64])
    grid = EpGrid(batch_size=64, gamma=3, top_k=8, context_tokens=60.0, ranks=ranks)
    times = replace(EP, cost=FREE_LINKS).round_seconds(grid)
    assert np.all(np.diff(times.verify.experts_s) < 0.0)
    assert np.all(np.diff(times.verify.total_s) < 0.0)


def test_more_bytes_a_token_cost_more_and_gathering_costs_most() -> None:
    grid = EpGrid(batch_size=64, gamma=3, top_k=8, context_tokens=60.0, ranks=16)
    ways = (Dispatch.ONCE_A_RANK, Dispatch.ONCE_AN_EXPERT, Dispatch.TO_ALL)
    slow = replace(LINKS, ranks_per_node=1)  # nothing shared: every row crosses the outer link
    once, each, gathered = (
        float(replace(EP, cost=slow, dispatch=way).target_seconds(grid, 4.0).communication_s)
        for way in ways
    )
    assert once < each < gathered


def test_packing_is_paid_a_layer_and_a_row() -> None:
    grid = EpGrid(batch_size=8, gamma=3, top_k=8, context_tokens=60.0, ranks=4)
    packed = replace(EP, packing=Packing(layer_s=1e-4, row_s=1e-6))
    seconds, work = packed.target(grid, 4.0)
    rows = float(work.traffic.rows)
    assert float(seconds.packing_s) == pytest.approx(4 * (1e-4 + rows * 1e-6))


def test_ranks_that_share_cores_stretch_computing_but_not_beyond_a_busy_host() -> None:
    grid = EpGrid(batch_size=8, gamma=3, top_k=8, context_tokens=60.0, ranks=8)
    own = EP.round_seconds(grid)
    shared = replace(EP, slowdown=lambda ranks: np.full_like(ranks, 4.0)).round_seconds(grid)
    assert float(shared.verify.rest_s) == pytest.approx(4 * float(own.verify.rest_s))
    assert float(shared.draft_step_s) == pytest.approx(4 * float(own.draft_step_s))
    assert float(shared.verify.communication_s) == float(own.verify.communication_s)
    # The host is busy throughout, so nobody waits for the busiest: it finishes with the others.
    assert float(shared.verify.experts_s) == pytest.approx(4 * float(own.verify.experts_s))
    assert float(shared.verify.imbalance_s) == 0.0
    little = replace(EP, slowdown=lambda ranks: np.full_like(ranks, 1.01)).round_seconds(grid)
    both = [float(t.verify.experts_s + t.verify.imbalance_s) for t in (own, little)]
    assert both[0] == pytest.approx(both[1])  # the busiest has a core of its own


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"hidden_share": 1.5}, r"must lie in \[0, 1\], got 1.5", id="hidden"),
        pytest.param({"step": replace(MODEL, target=NO_MODEL)}, "this one is dense", id="dense"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(EP, **changes)  # type: ignore[arg-type]


def test_lookup_in_the_text_costs_nothing() -> None:
    free = replace(MODEL.draft_rates, forward_s=0.0, token_s=0.0)
    lookup = replace(MODEL, draft=NO_MODEL, draft_rates=free, draft_round_s=0.0)
    grid = EpGrid(batch_size=8, gamma=3, top_k=8, context_tokens=60.0, ranks=4)
    found = replace(EP, step=lookup).round_seconds(grid)
    assert float(found.draft_step_s) == 0.0
