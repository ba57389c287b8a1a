"""Every conf/model file is a model that transformers builds, of the size that its makers publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from moesd_dist.models.shape import shape_of

FOLDER = Path(__file__).parents[2] / "conf" / "model"
KEYS = {
    "defaults", "name", "source", "location", "config", "overrides", "num_layers", "top_k",
    "widen", "dtype", "seed", "trust_remote_code",
}  # fmt: skip


def conf(name: str) -> dict[str, Any]:
    loaded = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    assert isinstance(loaded, dict)
    return {str(key): value for key, value in loaded.items()}


NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SHAPES = [name for name in NAMES if conf(name)["source"] == "shape"]
TINY = [name for name in SHAPES if name.startswith("tiny")]


def build(config: dict[str, Any], device: str) -> PreTrainedModel:
    keys = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device(device):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **keys))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_commented_named_after_itself_and_extends_the_schema(name: str) -> None:
    text, content = (FOLDER / f"{name}.yaml").read_text(), conf(name)
    assert text.startswith("# ")
    assert content["defaults"] == ["/schema/model@_here_", "_self_"]
    if name != "checkpoint":  # named after what is in it
        assert content["name"] == name
    assert set(content) <= KEYS


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_has_as_many_parameters_as_transformers_builds(name: str) -> None:
    config = conf(name)["config"]
    model = build(config, "meta")
    assert shape_of(config).total_params == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "total_billions", "active_billions"),
    [
        pytest.param("qwen2_57b_a14b", 57.4, 14.2, id="Qwen2-57B-A14B"),
        pytest.param("mixtral_8x7b", 46.7, 12.9, id="Mixtral 8x7B"),
        pytest.param("qwen3_30b_a3b", 30.5, 3.3, id="Qwen3-30B-A3B"),
        pytest.param("deepseek_v2_lite", 15.7, 2.7, id="DeepSeek-V2-Lite"),
        pytest.param("qwen15_moe_a27b", 14.3, 2.7, id="Qwen1.5-MoE-A2.7B"),
        pytest.param("olmoe_1b_7b", 6.9, 1.3, id="OLMoE-1B-7B"),
        pytest.param("deepseek_v3", 671.0, 37.5, id="DeepSeek-V3"),
        pytest.param("qwen3_235b_a22b", 235.0, 22.0, id="Qwen3-235B-A22B"),
        pytest.param("opt_30b", 30.0, 30.0, id="OPT-30B"),
    ],
)
def test_a_public_model_has_its_published_size(
    name: str, total_billions: float, active_billions: float
) -> None:
    shape = shape_of(conf(name)["config"])
    assert shape.total_params == pytest.approx(total_billions * 1e9, rel=0.01)
    assert shape.active_params == pytest.approx(active_billions * 1e9, rel=0.02)


def test_kimi_k2_is_of_deepseek_v3s_family_and_within_two_percent_of_its_printed_size() -> None:
    shape, relative = (shape_of(conf(name)["config"]) for name in ("kimi_k2", "deepseek_v3"))
    assert shape.total_params == pytest.approx(1.04e12, rel=0.02)  # as its report prints it
    assert shape.active_params - shape.lookup_params == pytest.approx(32e9, rel=0.02)
    assert shape.expert_params == relative.expert_params
    assert (shape.num_experts, shape.num_moe_layers) == (384, 60)


@pytest.mark.parametrize("name", ["deepseek_v3", "kimi_k2", "qwen3_235b_a22b"])
def test_the_first_layer_alone_stands_for_a_layer_that_predicts_further_tokens(name: str) -> None:
    """A dense block of it is as wide as the experts that a token passes in any other layer."""
    config = conf(name)["config"]
    target = shape_of(config)
    draft = shape_of({**config, "num_hidden_layers": 1, **({"mlp_only_layers": [0]} if "mlp_only_layers" in config else {})})  # fmt: skip
    assert draft.num_moe_layers == 0
    wide = (target.top_k + target.num_shared_experts) * target.expert_params
    hidden = target.hidden_size
    assert 3 * hidden * config["intermediate_size"] == wide
    assert draft.vocab_size == target.vocab_size


def test_the_small_cpu_pair_differs_only_in_its_experts() -> None:
    moe = shape_of(conf("cpu_moe_small")["config"])
    dense = shape_of(conf("cpu_dense_small")["config"])
    assert moe.weight_bytes(2) == pytest.approx(0.8 * 2**30, rel=0.05)
    routers = moe.num_moe_layers * moe.num_experts * moe.hidden_size
    assert dense.total_params == moe.active_params - routers
    assert dense.kv_bytes_per_token(2) == moe.kv_bytes_per_token(2)


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_model_runs_and_caches_what_its_shape_says(name: str) -> None:
    config, batch, tokens = conf(name)["config"], 2, 5
    with torch.no_grad():
        model = build(config, "cpu").eval()
        output = model(input_ids=torch.arange(10).reshape(batch, tokens), use_cache=True)
    assert output.logits.isfinite().all()
    layers = output.past_key_values.layers
    cached = sum(t.numel() * t.element_size() for layer in layers for t in (layer.keys, layer.values))  # fmt: skip
    assert cached == batch * tokens * shape_of(config).kv_bytes_per_token(4)


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_model_is_tiny_in_float32_with_heads_that_kernels_take(name: str) -> None:
    content = conf(name)
    shape = shape_of(content["config"])
    assert content["dtype"] == "float32"
    assert 64 <= shape.vocab_size <= 256
    assert shape.num_layers == 2
    assert content["config"].get("head_dim", 16) >= 16
