"""A widened model computes the function of the original, with weights that stay exact in bf16."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from moesd_dist.models.shape import shape_of
from moesd_dist.models.widening import (
    Tiling,
    WideningFactors,
    apply_tiling,
    tiling_of,
    widen_config,
    widen_state,
)

CONFIG: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "intermediate_size": 64,
    "norm_topk_prob": True,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
FACTORS = [
    pytest.param(factors, id="hidden {} expert {} heads {}".format(*factors))
    for factors in [(1, 1, 1), (2, 1, 1), (1, 4, 2), (1, 1, 4), (4, 4, 2), (8, 16, 4)]
]
TOKENS = torch.arange(24).reshape(2, 12) * 3


def factors_from(values: tuple[int, int, int]) -> WideningFactors:
    return WideningFactors(hidden=values[0], expert=values[1], heads=values[2])


def random_model(config: dict[str, Any] = CONFIG) -> Qwen3MoeForCausalLM:
    """Weights large enough that experts differ and norms are not all one."""
    torch.manual_seed(0)
    keys = {key: value for key, value in config.items() if key != "model_type"}
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**keys))
    for parameter in model.parameters():
        noise = torch.randn_like(parameter)
        parameter.data = 1 + 0.2 * noise if parameter.dim() == 1 else 0.3 * noise
    return model.eval()


def widened(model: Qwen3MoeForCausalLM, factors: WideningFactors) -> Qwen3MoeForCausalLM:
    config = widen_config(CONFIG, factors)
    keys = {key: value for key, value in config.items() if key != "model_type"}
    wide = Qwen3MoeForCausalLM(Qwen3MoeConfig(**keys))
    wide.load_state_dict(dict(widen_state(model.state_dict(), factors)), strict=True)
    return wide.eval()


@torch.no_grad()
def outputs(model: Qwen3MoeForCausalLM) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the experts that each layer chose."""
    result = model(input_ids=TOKENS, output_router_logits=True)
    chosen = [scores.topk(2).indices.sort().values for scores in result.router_logits]
    return result.logits, chosen


@pytest.mark.parametrize("values", FACTORS)
def test_a_widened_model_computes_the_same_logits_with_the_same_experts(
    values: tuple[int, int, int],
) -> None:
    model = random_model()
    logits, experts = outputs(model)
    wide_logits, wide_experts = outputs(widened(model, factors_from(values)))
    assert (wide_logits - logits).abs().max() < 1e-4
    assert all(torch.equal(a, b) for a, b in zip(experts, wide_experts, strict=True))


@pytest.mark.parametrize("values", FACTORS)
def test_every_widened_weight_is_exact_in_bfloat16(values: tuple[int, int, int]) -> None:
    factors = factors_from(values)
    rounded = {k: v.bfloat16() for k, v in random_model().state_dict().items()}
    for name, tensor in rounded.items():
        tiling = tiling_of(name, factors)
        in_bf16, in_f64 = apply_tiling(tensor, tiling), apply_tiling(tensor.double(), tiling)
        assert in_bf16.dtype == torch.bfloat16
        assert torch.equal(in_bf16.double(), in_f64), name


@pytest.mark.parametrize("values", FACTORS)
def test_expert_bytes_grow_by_both_factors_and_the_cache_by_the_heads(
    values: tuple[int, int, int],
) -> None:
    factors = factors_from(values)
    small, wide = shape_of(CONFIG), shape_of(widen_config(CONFIG, factors))
    assert wide.expert_bytes(2) == small.expert_bytes(2) * factors.hidden * factors.expert
    assert wide.kv_bytes_per_token(2) == small.kv_bytes_per_token(2) * factors.heads


def test_a_head_that_was_tied_is_made_from_the_embedding_when_it_is_not_stored() -> None:
    factors = WideningFactors(hidden=2)
    state = random_model().state_dict()
    stored = {name: tensor for name, tensor in state.items() if name != "lm_head.weight"}
    wide = dict(widen_state(stored, factors))
    assert torch.equal(wide["lm_head.weight"], state["model.embed_tokens.weight"].repeat(1, 2) / 2)


def test_factors_of_one_leave_the_config_as_it_is() -> None:
    assert widen_config(CONFIG, WideningFactors()) == CONFIG


def test_widening_makes_an_implied_head_dim_explicit_and_leaves_its_input_alone() -> None:
    before = dict(CONFIG)
    assert widen_config(CONFIG, WideningFactors(hidden=4))["head_dim"] == 8
    assert before == CONFIG


@pytest.mark.parametrize(
    ("shape", "tiling", "expected"),
    [
        pytest.param((6,), Tiling(columns=4), (24,), id="a vector"),
        pytest.param((6, 4), Tiling(rows=2, columns=3), (12, 12), id="a matrix"),
        pytest.param((5, 6, 4), Tiling(rows=2, columns=3, stacked=2), (5, 12, 12), id="experts"),
    ],
)
def test_a_tiling_keeps_the_axis_of_experts(
    shape: tuple[int, ...], tiling: Tiling, expected: tuple[int, ...]
) -> None:
    values = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
    assert tuple(apply_tiling(values, tiling).shape) == expected


def test_gate_and_up_halves_are_tiled_apart() -> None:
    gate_up = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])  # one expert: gates 1 2, ups 3 4
    tiled = apply_tiling(gate_up, Tiling(rows=2, stacked=2))
    assert tiled.flatten().tolist() == [1, 2, 1, 2, 3, 4, 3, 4]


@pytest.mark.parametrize("name", ["hidden", "expert", "heads"])
@pytest.mark.parametrize("value", [0, -2, 3, 6])
def test_a_factor_that_is_no_power_of_two_is_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a power of two; got {value}; use one"):
        WideningFactors(**{name: value})


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.mlp.experts.0.gate_proj.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "layers.0.mlp.gate.weight",
        "model.layers.0.model.norm.weight.extra",
    ],
)
def test_an_unknown_parameter_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no tiling is known for parameter"):
        tiling_of(name, WideningFactors())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"model_type": "mixtral"}, "only qwen3_moe can be widened; got 'mixtral'", id="another family"),
        pytest.param({"mlp_only_layers": [0]}, "experts in every layer; got 1 of 2", id="a dense layer"),
        pytest.param({"attention_bias": True}, "attention_bias", id="biases"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_widened_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        widen_config({**CONFIG, **changes}, WideningFactors(hidden=2))
