"""The engine's counts on the embedded pair, held against what they must add up to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from moesd_dist.engines.transformers.engine import TransformersEngine
from moesd_dist.engines.transformers.experts_path import experts_modules
from moesd_dist.records import (
    Device,
    DraftMethod,
    ModelSource,
    ModelSpec,
    Protocol,
    SdSpec,
    SweepPoint,
    WorkloadSpec,
)

TARGET = ModelSpec(name="embedded", source=ModelSource.embedded, location="target", dtype="float32")
DRAFT = replace(TARGET, name="draft", location="draft")
SD = SdSpec(method=DraftMethod.draft_model, draft=DRAFT)


def point(**changes):
    fields = {
        "engine": "transformers",
        "target": TARGET,
        "workload": WorkloadSpec(
            name="stdlib_code", prompt_tokens_min=16, prompt_tokens_max=24, output_tokens=12
        ),
        "batch_size": 4,
        "gamma": 3,
        "sd": SD,
        "protocol": Protocol(window_tokens=48, end_to_end_repeats=0),
    }
    return SweepPoint(**(fields | changes))


@pytest.fixture(scope="module")
def engine():
    return TransformersEngine(target=TARGET, draft=DRAFT, device=Device.cpu, threads=1)


def test_tokens_are_accepted_drafts_and_one_more_a_round(engine):
    found = engine.measure(point(), 0)
    assert found.tokens == found.accepted + found.sequence_rounds
    assert found.drafted == 3 * found.sequence_rounds
    assert found.sequence_rounds == 4 * found.rounds
    assert sum(found.accepted_per_position) == found.accepted
    assert found.seconds == pytest.approx(found.draft_s + found.target_s + found.reject_s)


def test_the_baseline_drafts_nothing(engine):
    found = engine.measure(point().baseline, 0)
    assert (found.drafted, found.accepted, found.tokens_per_forward) == (0, 0, 1)
    assert found.tokens == 4 * found.rounds == 48


def test_the_embedded_draft_is_accepted_far_more_often_than_chance(engine):
    found = engine.measure(point(batch_size=16), 0)
    assert found.accepted_per_position[0] / found.sequence_rounds > 0.4


def test_the_same_repeat_means_the_same_text(engine):
    first, again, other = (engine.measure(point(), repeat) for repeat in (0, 0, 1))
    assert first.accepted_per_position == again.accepted_per_position
    assert first.expert_load == again.expert_load
    assert first.expert_load != other.expert_load


def test_every_token_reaches_top_k_experts_in_every_layer(engine):
    found = engine.measure(point(), 0)
    tokens = found.rounds * 4 * found.tokens_per_forward
    assert [sum(layer) for layer in found.expert_load] == [tokens * 8] * 4
    assert found.layer_forwards == found.rounds * 4


def test_one_token_activates_exactly_top_k_experts(engine):
    found = engine.measure(point(batch_size=1).baseline, 0)
    assert found.experts_seen == (8 * found.rounds,) * 4


def test_activated_experts_equal_an_independent_count_at_the_router(engine):
    engine.warm_up(point())
    pair = engine._prepare(point())
    chosen: list[torch.Tensor] = []
    routers = [m for m in pair._model.modules() if type(m).__name__ == "Qwen3MoeTopKRouter"]
    hooks = [r.register_forward_hook(lambda _m, _i, out: chosen.append(out[2])) for r in routers]
    batch, runner = engine._start(point(), 0)
    chosen.clear()
    pair.recorder.take()
    runner.run(batch.sequences, 3)
    for hook in hooks:
        hook.remove()
    load, seen, forwards = pair.recorder.take()
    assert forwards == len(chosen) == 4
    assert seen == tuple(len(ids.unique()) for ids in chosen)
    for layer, ids in enumerate(chosen):
        assert load[layer].tolist() == torch.bincount(ids.flatten(), minlength=64).tolist()


@pytest.mark.parametrize("top_k", [1, 2, 16])
def test_top_k_can_be_overridden_without_reloading(engine, top_k):
    found = engine.measure(point(top_k=top_k), 0)
    tokens = found.rounds * 4 * found.tokens_per_forward
    assert sum(found.expert_load[0]) == tokens * top_k
    assert engine.routing(point(top_k=top_k)) == (64, top_k)
    engine.measure(point(), 0)
    assert engine.routing(point()) == (64, 8)


@pytest.mark.parametrize(
    "method", [SD, SdSpec(method=DraftMethod.ngram)], ids=["draft model", "n-gram"]
)
def test_synthetic_acceptance_follows_its_rate(engine, method):
    """With n-gram drafts as well, which find no match in random tokens."""
    asked = replace(method, synthetic_acceptance=(0.8,))
    text = replace(point().workload, name="random")
    wanted = point(sd=asked, workload=text, batch_size=32, protocol=Protocol(window_tokens=6000, end_to_end_repeats=0))  # fmt: skip
    found = engine.measure(wanted, 0)
    rates = [count / found.sequence_rounds for count in found.accepted_per_position]
    assert rates == pytest.approx([0.8, 0.64, 0.512], abs=0.04)
    assert wanted.synthetic_acceptance


def test_ngram_drafts_count_only_what_was_proposed(engine):
    found = engine.measure(point(sd=SdSpec(method=DraftMethod.ngram, ngram_min=2)), 0)
    assert 0 < found.drafted < 3 * found.sequence_rounds
    assert found.accepted <= found.drafted


def test_the_end_to_end_run_counts_every_sequence_to_its_end(engine):
    found = engine.measure(point(protocol=Protocol(window_tokens=1)), 0)
    assert found.end_to_end_tokens == 4 * 12
    assert found.end_to_end_s > 0


def test_a_batch_beyond_memory_is_infeasible_with_its_bytes(engine):
    found = engine.infeasible(point(batch_size=10**9))
    assert found is not None
    assert found.bytes_needed > found.bytes_available > 0
    assert engine.infeasible(point()) is None


def test_widening_changes_no_token_and_no_route():
    """The packaged target, twice as wide everywhere, in float32: the same text by the same experts."""
    wide = replace(TARGET, widen_hidden=2, widen_expert=2, widen_heads=2)
    found = []
    for target in (TARGET, wide):
        one = TransformersEngine(target=target, draft=DRAFT, device=Device.cpu, threads=1)
        found.append(one.measure(point(target=target), 0))
        assert len(experts_modules(one._pair._model)) == 4
    assert found[0].accepted_per_position == found[1].accepted_per_position
    assert found[0].expert_load == found[1].expert_load
