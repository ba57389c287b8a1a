"""The engine over several ranks: the same text, counted once, in step, and no rank waits for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moesd_dist.engines.transformers.engine import TransformersEngine, pool_size
from moesd_dist.records import (
    Device,
    DraftMethod,
    LayoutSpec,
    ModelSource,
    ModelSpec,
    Protocol,
    RankPlace,
    SdSpec,
    SweepPoint,
    WorkloadSpec,
)
from moesd_dist.sweep.ranks import merged_repeat
from tests.engines.own_ranks import on_ranks
from tests.engines.shared_engine import TIMEOUTS

TARGET = ModelSpec(name="embedded", source=ModelSource.embedded, location="target", dtype="float32")
DRAFT = replace(TARGET, name="draft", location="draft")
TWO = LayoutSpec(dp_size=2, ep_size=2)
POINT = SweepPoint(
    engine="transformers",
    target=TARGET,
    workload=WorkloadSpec(
        name="stdlib_code", prompt_tokens_min=16, prompt_tokens_max=24, output_tokens=12
    ),
    batch_size=5,
    gamma=3,
    sd=SdSpec(method=DraftMethod.draft_model, draft=DRAFT),
    layout=TWO,
    protocol=Protocol(window_tokens=60, warmup_rounds=1, end_to_end_repeats=1),
)
ONE_SEQUENCE = replace(POINT, batch_size=1)


@pytest.fixture(scope="module")
def by_rank():
    points = [POINT.baseline, POINT, ONE_SEQUENCE]
    return on_ranks(2, "tests.engines.shared_engine:measure", points)


@pytest.fixture(scope="module")
def merged(by_rank):
    return [merged_repeat(repeats) for repeats in zip(*by_rank, strict=True)]


@pytest.fixture(scope="module")
def alone():
    engine = TransformersEngine(target=TARGET, draft=DRAFT, device=Device.cpu, threads=1)
    single = replace(POINT, layout=LayoutSpec())
    return [engine.measure(p, 0) for p in (single.baseline, single, replace(single, batch_size=1))]


def test_the_baseline_writes_one_token_a_sequence_and_round(merged):
    assert merged[0].tokens == merged[0].sequence_rounds == 5 * merged[0].rounds
    assert merged[0].tokens >= 60


def test_a_batch_of_one_is_decoded_alike_on_one_rank_and_on_two(merged, alone):
    """Rank 1 has no sequence: what is accepted and which experts are chosen is the first one's."""
    shared, single = merged[2], alone[2]
    assert shared.accepted_per_position == single.accepted_per_position
    assert shared.expert_load == single.expert_load
    assert shared.experts_seen == single.experts_seen
    assert shared.end_to_end_tokens == single.end_to_end_tokens


def test_every_token_reaches_top_k_experts(merged):
    assert sum(merged[0].expert_load[0]) == 8 * merged[0].tokens


def test_drafting_is_no_part_of_verification_on_a_rank_without_drafts(merged):
    """Rank 1 has no sequence at batch 1: it meets the other after its drafts, outside of the forward."""
    busy, idle = merged[2].exchange.ranks
    assert idle.gate_tokens == 0
    assert idle.target_s < busy.target_s + merged[2].draft_s / 2


def test_a_round_is_as_long_as_its_slowest_rank(merged):
    for repeat in merged:
        for trace in repeat.exchange.ranks:
            assert trace.target_s <= repeat.target_s + 1e-9
        assert repeat.seconds <= repeat.draft_s + repeat.target_s + repeat.reject_s + 1e-9


def test_experts_seen_are_distinct_over_all_ranks(merged):
    for repeat in merged[:2]:
        forwards = repeat.exchange.forwards
        for layer, seen in enumerate(repeat.experts_seen):
            on_ranks = sum(trace.activated_experts[layer] for trace in repeat.exchange.ranks)
            assert seen == on_ranks  # without replicas every expert is on one rank
            assert 8 * forwards <= seen <= 64 * forwards
        assert repeat.layer_forwards == forwards * len(repeat.experts_seen)


def test_a_rank_holds_its_own_experts_only(merged, alone):
    whole = alone[0].exchange.ranks[0]
    for trace in merged[0].exchange.ranks:
        assert trace.expert_bytes == whole.expert_bytes // 2
        assert trace.weight_bytes == whole.weight_bytes - whole.expert_bytes // 2


def test_what_was_exchanged_is_of_the_window_alone(merged):
    for repeat in merged:
        assert repeat.exchange.forwards == repeat.rounds


def test_phases_are_within_the_forwards(merged):
    for repeat in merged:
        for trace in repeat.exchange.ranks:
            phases = (trace.pack_s, trace.dispatch_s, trace.expert_s, trace.combine_s)
            waiting = (trace.wait_arrival_s, trace.wait_expert_s)
            inside = sum(map(sum, (*phases, *waiting)))
            assert 0 < inside < trace.target_s


def test_different_gammas_are_refused_on_every_rank():
    for said in on_ranks(2, "tests.engines.shared_engine:disagree", POINT):
        assert "gamma" in said
        assert "must be equal on all ranks" in said


def test_a_dead_rank_is_an_error_of_the_others_at_once():
    (said, seconds), _ = on_ranks(2, "tests.engines.shared_engine:lose_a_rank", POINT.baseline)
    assert said not in ("measured", "gone")
    assert seconds < TIMEOUTS[1]


def test_a_silent_rank_is_an_error_at_the_timeout():
    (said, seconds), _ = on_ranks(2, "tests.engines.shared_engine:stall_a_rank", POINT.baseline)
    assert said not in ("measured", "late")
    assert TIMEOUTS[1] * 0.9 < seconds < TIMEOUTS[1] + 2.5


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
def test_ranks_have_prompts_for_their_share(batch_size):
    sizes = [
        pool_size(replace(POINT, batch_size=batch_size), RankPlace(rank=r, size=4))
        for r in range(4)
    ]
    assert [size > 0 for size in sizes] == [rank < batch_size for rank in range(4)]
