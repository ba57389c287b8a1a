"""Shapes count exactly what transformers builds, for every family and its options."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from moesd_dist.models.families import DENSE_FAMILIES, MOE_FAMILIES
from moesd_dist.models.shape import ModelShape, bytes_per_value, shape_of

BASE = {
    "vocab_size": 97,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "eos_token_id": 1,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {
    "kv_lora_rank": 20,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 24,
    "v_head_dim": 28,
    "q_lora_rank": None,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}
GROUPS = {"n_group": 2, "topk_group": 1, "topk_method": "group_limited_greedy"}
QWEN2_MOE = {**EXPERTS, "shared_expert_intermediate_size": 64}
OPT = {"ffn_dim": 96}

CASES = [
    pytest.param("qwen2_moe", QWEN2_MOE, id="qwen2_moe: biases, a shared expert and its gate"),
    pytest.param("qwen2_moe", {**QWEN2_MOE, "qkv_bias": False}, id="qwen2_moe without biases"),
    pytest.param("qwen2_moe", {**QWEN2_MOE, "mlp_only_layers": [0, 7]}, id="qwen2_moe: a dense layer"),
    pytest.param("qwen2_moe", {**QWEN2_MOE, "decoder_sparse_step": 2}, id="qwen2_moe: every other layer"),
    pytest.param("qwen3_moe", EXPERTS, id="qwen3_moe: head_dim follows from the width"),
    pytest.param("qwen3_moe", {**EXPERTS, "head_dim": 24}, id="qwen3_moe: head_dim given"),
    pytest.param("qwen3_moe", {**EXPERTS, "attention_bias": True}, id="qwen3_moe with biases"),
    pytest.param("qwen3_moe", {**EXPERTS, "tie_word_embeddings": True}, id="qwen3_moe: tied head"),
    pytest.param("qwen3_moe", {**EXPERTS, "mlp_only_layers": [1]}, id="qwen3_moe: a dense layer"),
    pytest.param("mixtral", {"num_local_experts": 8, "num_experts_per_tok": 2}, id="mixtral"),
    pytest.param("mixtral", {"num_experts": 4, "num_experts_per_tok": 2, "head_dim": None}, id="mixtral: synonym"),
    pytest.param("olmoe", {"num_experts": 8, "num_experts_per_tok": 2}, id="olmoe: norms over all heads"),
    pytest.param("olmoe", {"num_experts": 8, "num_experts_per_tok": 2, "attention_bias": True}, id="olmoe with biases"),
    pytest.param("deepseek_v2", LATENT, id="deepseek_v2: plain queries"),
    pytest.param("deepseek_v2", {**LATENT, "q_lora_rank": 40}, id="deepseek_v2: low-rank queries"),
    pytest.param("deepseek_v2", {**LATENT, "q_lora_rank": 40, "attention_bias": True, "mlp_bias": True}, id="deepseek_v2 with biases"),
    pytest.param("deepseek_v2", {**LATENT, **GROUPS}, id="deepseek_v2: groups"),
    pytest.param("deepseek_v2", {**LATENT, "first_k_dense_replace": 9}, id="deepseek_v2: all dense"),
    pytest.param("deepseek_v3", {**LATENT, **GROUPS, "q_lora_rank": 40}, id="deepseek_v3"),
    pytest.param("deepseek_v3", {**LATENT, **GROUPS, "first_k_dense_replace": 0}, id="deepseek_v3: all MoE"),
    pytest.param("llama", {}, id="llama"),
    pytest.param("llama", {"num_key_value_heads": None}, id="llama: as many key heads as heads"),
    pytest.param("llama", {"attention_bias": True, "mlp_bias": True}, id="llama with biases"),
    pytest.param("llama", {"tie_word_embeddings": True, "head_dim": 32}, id="llama: tied, wide heads"),
    pytest.param("mistral", {}, id="mistral"),
    pytest.param("qwen2", {}, id="qwen2: biases on queries, keys and values"),
    pytest.param("qwen3", {}, id="qwen3: heads of 128 unless told"),
    pytest.param("qwen3", {"head_dim": 16, "attention_bias": True}, id="qwen3 with biases"),
    pytest.param("opt", OPT, id="opt: tied, learned positions"),
    pytest.param("opt", {**OPT, "word_embed_proj_dim": 32}, id="opt: a narrow embedding, as in 350M"),
    pytest.param("opt", {**OPT, "do_layer_norm_before": False}, id="opt: no final norm"),
    pytest.param("opt", {**OPT, "enable_bias": False, "layer_norm_elementwise_affine": False}, id="opt: bare"),
    pytest.param("opt", {**OPT, "tie_word_embeddings": False}, id="opt: untied"),
]  # fmt: skip


def built(config: dict[str, Any]) -> PreTrainedModel:
    """The transformers model without memory behind it."""
    keys = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **keys))


def numel(model: PreTrainedModel, *parts: str) -> int:
    return sum(p.numel() for n, p in model.named_parameters() if all(part in n for part in parts))


@pytest.mark.parametrize(("family", "keys"), CASES)
def test_parameters_are_counted_as_transformers_builds_them(
    family: str, keys: dict[str, Any]
) -> None:
    config = {**BASE, **keys, "model_type": family}
    shape, model = shape_of(config), built(config)
    assert shape.total_params == numel(model)
    assert shape.routed_expert_params == numel(model, ".mlp.experts.")


@pytest.mark.parametrize("family", MOE_FAMILIES + DENSE_FAMILIES)
def test_every_family_has_a_case(family: str) -> None:
    assert family in {case.values[0] for case in CASES}


def a_shape(**changes: Any) -> ModelShape:
    return shape_of({**BASE, **EXPERTS, "model_type": "qwen3_moe", **changes})


def test_active_parameters_are_all_but_the_experts_not_chosen() -> None:
    shape = a_shape()
    idle = shape.num_moe_layers * (shape.num_experts - shape.top_k) * shape.expert_params
    assert shape.active_params == shape.total_params - idle
    assert a_shape(num_experts_per_tok=8).active_params == shape.total_params


def test_a_dense_model_has_no_experts_and_is_wholly_active() -> None:
    shape = shape_of({**BASE, "model_type": "llama"})
    assert (shape.num_experts, shape.top_k, shape.num_moe_layers, shape.expert_params) == (0, 0, 0, 0)  # fmt: skip
    assert shape.active_params == shape.non_expert_params == shape.total_params
    assert shape.activation_ratio == 1.0


def test_a_tied_embedding_is_multiplied_and_an_untied_one_is_looked_up() -> None:
    tied, untied = a_shape(tie_word_embeddings=True), a_shape()
    assert untied.lookup_params == 97 * 64
    assert tied.lookup_params == 0
    assert tied.streamed_non_expert_params == untied.streamed_non_expert_params
    assert tied.ops_per_token == untied.ops_per_token


def test_bytes_are_parameters_times_their_width() -> None:
    shape = a_shape()
    assert shape.expert_bytes(2) == 2 * 3 * 64 * 32
    assert shape.routed_expert_bytes(2) == 3 * 8 * shape.expert_bytes(2)
    assert shape.weight_bytes(0.5) == shape.total_params / 2
    assert shape.weight_bytes(2) == shape.routed_expert_bytes(2) + shape.non_expert_bytes(2)


@pytest.mark.parametrize(
    ("family", "keys", "shared"),
    [
        pytest.param("qwen2_moe", QWEN2_MOE, 2, id="fused into one of twice the width"),
        pytest.param("deepseek_v2", LATENT, 2, id="counted by the config"),
        pytest.param("qwen3_moe", EXPERTS, 0, id="none"),
    ],
)
def test_shared_experts_are_counted_in_widths_of_a_routed_one(
    family: str, keys: dict[str, Any], shared: int
) -> None:
    assert shape_of({**BASE, **keys, "model_type": family}).num_shared_experts == shared


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"model_type": "gpt2"}, "model_type 'gpt2' is not known; use one of qwen2_moe", id="unknown family"),
        pytest.param({"model_type": None}, "model_type None is not known", id="no family"),
        pytest.param({"hidden_size": None}, "config needs hidden_size; add it", id="missing key"),
        pytest.param({"num_experts": None}, "num_experts or num_local_experts or n_routed_experts", id="missing synonyms"),
        pytest.param({"moe_intermediate_size": None}, "needs moe_intermediate_size", id="the dense width is no stand-in"),
        pytest.param({"hidden_size": "64"}, "hidden_size must be a whole number; got '64'", id="text"),
        pytest.param({"hidden_size": True}, "got True", id="boolean"),
        pytest.param({"num_experts": 0}, "got 0; use 1 or more", id="zero"),
        pytest.param({"num_experts_per_tok": 9}, "top_k 9 exceeds num_experts 8; use 1..8", id="too many experts per token"),
    ],
)  # fmt: skip
def test_a_wrong_config_says_the_rule_the_value_and_the_way_out(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        a_shape(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"num_experts_per_tok": 5}, "top_k 5 exceeds the 4 experts in reach", id="more than the open groups hold"),
        pytest.param({"n_group": 3}, "n_group 3 does not divide num_experts 8", id="groups of unequal size"),
    ],
)  # fmt: skip
def test_deepseek_v3_routes_within_its_open_groups(changes: dict[str, Any], message: str) -> None:
    config = {**BASE, **LATENT, **GROUPS, "model_type": "deepseek_v3"}
    with pytest.raises(ValueError, match=message):
        shape_of({**config, **changes})


def test_deepseek_needs_its_query_rank_spelled_out() -> None:
    config = {**BASE, **LATENT, "model_type": "deepseek_v2"}
    del config["q_lora_rank"]
    with pytest.raises(ValueError, match="needs q_lora_rank"):
        shape_of(config)


def test_a_dtype_has_a_width_or_is_refused() -> None:
    assert [bytes_per_value(d) for d in ("bfloat16", "float16", "float32")] == [2, 2, 4]
    assert bytes_per_value("float8_e4m3fn") == 1
    with pytest.raises(ValueError, match="'int3' is not supported; use one of bfloat16"):
        bytes_per_value("int3")
