"""Random weights are those of the model's own initialisation, and the same in every layout."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from moesd_dist.engines.transformers.experts_path import experts_modules
from moesd_dist.engines.transformers.load import load_config, load_model
from moesd_dist.engines.transformers.local_experts import LocalExperts
from moesd_dist.theory.expert_parallel.placement import EMPTY, linear, round_robin

CPU = torch.device("cpu")
MOE = ["qwen2_moe", "qwen3_moe", "mixtral", "olmoe", "deepseek_v2", "deepseek_v3"]
ALL = [*MOE, "dense", "opt"]


def spec(kit, family, **changes):
    return kit.spec_of(f"tiny_{family}", **changes)


def same_weights(one, other):
    theirs = dict(other.named_parameters())
    return {name: torch.equal(p, theirs[name]) for name, p in one.named_parameters()}


@pytest.mark.parametrize("family", ALL)
def test_weights_are_distributed_as_the_models_own(kit, family):
    torch.manual_seed(0)
    own = AutoModelForCausalLM.from_config(load_config(spec(kit, family)), dtype=torch.float32)
    ours = load_model(spec(kit, family), CPU)
    for (name, p), (our_name, q) in zip(
        own.requires_grad_(False).named_parameters(), ours.named_parameters(), strict=True
    ):
        assert (our_name, q.shape, q.dtype) == (name, p.shape, p.dtype)
        # Five standard errors of a standard deviation and of a mean; constants must be equal.
        spread = float(p.std())
        assert float(q.std()) == pytest.approx(spread, rel=5 * p.numel() ** -0.5, abs=1e-9), name
        assert float(q.mean()) == pytest.approx(
            float(p.mean()), abs=7 * spread * p.numel() ** -0.5
        ), name


@pytest.mark.parametrize("family", ALL)
def test_buffers_are_the_models_own(kit, family):
    own = AutoModelForCausalLM.from_config(load_config(spec(kit, family)), dtype=torch.float32)
    ours = dict(load_model(spec(kit, family), CPU).named_buffers())
    assert set(ours) == {name for name, _ in own.named_buffers()}
    for name, buffer in own.named_buffers():
        torch.testing.assert_close(ours[name], buffer, rtol=0, atol=0)


def test_the_padding_token_has_no_embedding_as_in_the_models_own(kit):
    found = load_model(spec(kit, "qwen3_moe", pad_token_id=5), CPU)
    assert (found.model.embed_tokens.weight == 0).all(1).nonzero().flatten().tolist() == [5]


def test_a_tied_head_stays_tied(kit):
    found = load_model(spec(kit, "qwen3_moe", tie_word_embeddings=True, pad_token_id=5), CPU)
    assert found.lm_head.weight is found.model.embed_tokens.weight
    assert not found.lm_head.weight[5].any()


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("family", MOE)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_rank_has_the_same_weights_as_one_process(kit, family, ranks, dtype):
    same = replace(spec(kit, family), dtype=dtype)
    whole = load_model(same, CPU)
    weights, modules = dict(whole.named_parameters()), experts_modules(whole)
    routed = {id(p) for module in modules for p in module.parameters()}
    placement = round_robin(8, ranks=ranks, layers=len(modules))
    for rank in range(ranks):
        local = LocalExperts(logical=placement.of_rank(rank), num_experts=8)
        part = load_model(same, CPU, local)
        for name, parameter in part.named_parameters():
            if id(weights[name]) not in routed:
                assert torch.equal(parameter, weights[name]), name
        for row, ours, theirs in zip(
            local.logical.tolist(), experts_modules(part), modules, strict=True
        ):
            for mine, all_of_them in zip(ours.parameters(), theirs.parameters(), strict=True):
                for slot, expert in enumerate(row):
                    wanted = 0 * mine[slot] if expert == EMPTY else all_of_them[expert]
                    assert torch.equal(mine[slot], wanted)


def test_no_two_experts_or_layers_are_alike(kit):
    modules = experts_modules(load_model(spec(kit, "qwen3_moe"), CPU))
    down = torch.cat([module.down_proj.flatten(1) for module in modules])
    assert len(down.unique(dim=0)) == 2 * 8


def test_another_seed_gives_other_weights(kit):
    one = load_model(spec(kit, "qwen3_moe"), CPU)
    other = load_model(replace(spec(kit, "qwen3_moe"), seed=1), CPU)
    same = same_weights(one, other)
    assert {name for name, equal in same.items() if equal} == {n for n in same if "norm" in n}


def test_more_layers_leave_the_first_ones_as_they_are(kit):
    short = load_model(spec(kit, "qwen3_moe"), CPU)
    longer = load_model(spec(kit, "qwen3_moe", num_hidden_layers=3), CPU)
    assert all(same_weights(short, longer).values())


def test_loading_leaves_the_global_generator_alone(kit):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    load_model(spec(kit, "qwen3_moe"), CPU)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_dense_model_ignores_a_placement(kit):
    local = LocalExperts(logical=linear(8, ranks=2).of_rank(0), num_experts=8)
    one, other = (load_model(spec(kit, "dense"), CPU, experts) for experts in (None, local))
    assert all(same_weights(one, other).values())


@pytest.mark.gpu
def test_a_rank_has_the_same_weights_as_one_process_on_cuda(kit):
    device = torch.device("cuda", 0)
    whole = load_model(spec(kit, "qwen3_moe"), device)
    local = LocalExperts(logical=linear(8, ranks=2, layers=2).of_rank(1), num_experts=8)
    part = load_model(spec(kit, "qwen3_moe"), device, local)
    assert {p.device.type for p in part.parameters()} == {"cuda"}
    assert torch.equal(part.lm_head.weight, whole.lm_head.weight)
    for ours, theirs in zip(experts_modules(part), experts_modules(whole), strict=True):
        assert torch.equal(ours.gate_up_proj, theirs.gate_up_proj[4:])
