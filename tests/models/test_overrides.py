"""Overrides change a config's own keys, also under the project's names for them."""

from __future__ import annotations

from typing import Any

import pytest

from moesd_dist.models.overrides import override_config

QWEN3_MOE = {
    "model_type": "qwen3_moe",
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 4,
}
MIXTRAL = {
    "model_type": "mixtral",
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 4,
}
DEEPSEEK = {
    "model_type": "deepseek_v2",
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 4,
}
LLAMA = {"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 64}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "override", "key", "value"),
    [
        pytest.param(QWEN3_MOE, ("top_k", "4"), "num_experts_per_tok", 4, id="top_k"),
        pytest.param(DEEPSEEK, ("num_layers", "2"), "num_hidden_layers", 2, id="num_layers"),
        pytest.param(QWEN3_MOE, ("num_experts", "16"), "num_experts", 16, id="the config's own key"),
        pytest.param(MIXTRAL, ("num_experts", "16"), "num_local_experts", 16, id="Mixtral's experts"),
        pytest.param(DEEPSEEK, ("num_experts", "16"), "n_routed_experts", 16, id="DeepSeek's experts"),
        pytest.param({**LLAMA, "rope": 1.5}, ("rope", "null"), "rope", None, id="JSON null"),
    ],
)  # fmt: skip
def test_an_override_changes_the_familys_own_key_and_no_other(
    config: dict[str, Any], override: tuple[str, str], key: str, value: Any
) -> None:
    assert override_config(config, [override]) == {**config, key: value}


def test_the_list_of_layer_types_follows_the_number_of_layers() -> None:
    config = {**LLAMA, "layer_types": ["full_attention"] * 4}
    for count in ("2", "6"):
        changed = override_config(config, [("num_layers", count)])
        assert len(changed["layer_types"]) == int(count)


def test_an_override_leaves_the_config_that_was_given_alone() -> None:
    before = dict(QWEN3_MOE)
    override_config(QWEN3_MOE, [("top_k", "4")])
    assert before == QWEN3_MOE


@pytest.mark.parametrize(
    ("config", "override", "message"),
    [
        pytest.param(QWEN3_MOE, ("top_k", "9"), "top_k 9 exceeds num_experts 8; use 1..8", id="too many experts"),
        pytest.param(QWEN3_MOE, ("num_expert", "9"), "'num_expert' is not a key of this qwen3_moe config; did you mean 'num_experts'", id="a slip"),
        pytest.param(LLAMA, ("num_layer", "9"), "did you mean 'num_layers'", id="a slip in our own name"),
        pytest.param(LLAMA, ("top_k", "1"), "top_k needs routed experts; llama is dense; leave it out", id="a dense model"),
        pytest.param(LLAMA, ("hidden_size", "wide"), "value of hidden_size must be JSON; got 'wide'", id="not JSON"),
    ],
)  # fmt: skip
def test_a_wrong_override_says_the_rule_the_value_and_the_way_out(
    config: dict[str, Any], override: tuple[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        override_config(config, [override])
