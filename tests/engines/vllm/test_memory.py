"""What an engine takes of a device, against sizes worked out by hand for one shape."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from moesd_dist.engines.vllm.memory import (
    RUNTIME_BYTES,
    DeviceMemory,
    cache_bytes,
    cuda_arguments,
    device_memory,
    fills_device,
    needed_bytes,
)
from moesd_dist.models.sources import EMBEDDED
from moesd_dist.records import (
    Device,
    DraftMethod,
    LayoutSpec,
    ModelSource,
    ModelSpec,
    SdSpec,
)
from tests.engines.vllm.points import FIXED, TARGET, WORK, point

MIB, GIB = 2**20, 2**30
CONFIG = {
    "model_type": "qwen3_moe",
    "vocab_size": 128,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
LATENT = {
    "model_type": "deepseek_v2",
    "vocab_size": 128,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 96,
    "first_k_dense_replace": 1,
    "q_lora_rank": None,
    "kv_lora_rank": 48,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}


def shape(config: dict[str, object], name: str = "shape") -> ModelSpec:
    items = tuple((key, json.dumps(config[key])) for key in sorted(config))
    return ModelSpec(name=name, source=ModelSource.shape, config=items, dtype="float32")


SHAPE = shape(CONFIG)
HUB = ModelSpec(name="hub", source=ModelSource.checkpoint, location="org/name")
# Two embeddings, the last norm; per layer projections, head norms, norms and router.
REST = 2 * 128 * 64 + 64 + 2 * (64 * 64 + 2 * 64 * 32 + 64 * 64 + 2 * 16 + 2 * 64 + 64 * 8)
EXPERTS = 2 * 8 * 3 * 64 * 32
CONTEXT = 128  # 24 + 4 x 12 + 32 tokens, in whole blocks of 64
CACHED = 2 * 2 * 2 * 16 * 4  # bytes a token: key and value, layers, heads, values of 4 bytes
SEQUENCES = 4096


def of_shape(**changes):
    return point(target=SHAPE, sd=FIXED, **changes)


def test_a_processor_holds_weights_caches_and_the_runtime():
    assert needed_bytes(of_shape(), 1) == 4 * (REST + EXPERTS) + 64 * MIB + GIB


def test_the_cache_is_of_all_sequences_at_full_length_with_a_margin():
    assert cache_bytes(of_shape(), SEQUENCES) == int(1.25 * CACHED * CONTEXT * SEQUENCES)


def test_a_small_cache_is_rounded_up():
    assert cache_bytes(of_shape(), 1) == 64 * MIB


def test_a_draft_brings_its_weights_and_its_cache_and_the_baseline_has_none():
    sd = SdSpec(method=DraftMethod.draft_model, draft=SHAPE)
    paired = point(target=SHAPE, sd=sd)
    assert cache_bytes(paired, SEQUENCES) == 2 * cache_bytes(paired.baseline, SEQUENCES)
    extra = needed_bytes(paired, 1) - needed_bytes(paired.baseline, 1)
    assert extra == 4 * (REST + EXPERTS)


@pytest.mark.parametrize(
    ("layout", "rest", "experts"),
    [
        pytest.param(LayoutSpec(tp_size=2), 2, 2, id="tensors share everything"),
        pytest.param(LayoutSpec(tp_size=2, ep_size=2), 2, 2, id="TP with experts by the expert"),
        pytest.param(LayoutSpec(dp_size=4, ep_size=4), 1, 4, id="DP shares the experts alone"),
        pytest.param(LayoutSpec(dp_size=2), 1, 1, id="DP without EP shares nothing"),
        pytest.param(LayoutSpec(tp_size=2, dp_size=2, ep_size=4), 2, 4, id="all of them"),
    ],
)
def test_ranks_share_weights_as_the_layout_says(layout, rest, experts):
    found = needed_bytes(of_shape(layout=layout), 1) - 64 * MIB - GIB
    assert found == 4 * (REST // rest + EXPERTS // experts)


@pytest.mark.parametrize(
    ("config", "tp_size", "share"),
    [
        pytest.param(CONFIG, 2, 2, id="two heads for two ranks"),
        pytest.param(CONFIG, 4, 2, id="two heads for four ranks: each is there twice"),
        pytest.param(LATENT, 2, 1, id="one latent for all heads, whole on every rank"),
    ],
)
def test_ranks_share_key_value_heads_as_far_as_there_are_any(config, tp_size, share):
    whole = point(target=shape(config), sd=FIXED)
    shared = replace(whole, layout=LayoutSpec(tp_size=tp_size))
    assert cache_bytes(whole, SEQUENCES) == share * cache_bytes(shared, SEQUENCES)


def test_other_experts_per_token_need_the_same_memory():
    assert needed_bytes(of_shape(top_k=8), 1) == needed_bytes(of_shape(), 1)


def test_weights_of_an_unknown_family_are_weighed_by_their_files(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "none_we_know"}))
    weights = shutil.copy(EMBEDDED / "draft" / "model.safetensors", tmp_path)
    local = replace(TARGET, source=ModelSource.checkpoint, location=str(tmp_path))
    found = needed_bytes(point(target=local, sd=FIXED), 1)
    assert found == Path(weights).stat().st_size + 64 * MIB + GIB


def test_on_a_gpu_an_engine_is_told_its_cache_and_its_share_of_the_device():
    memory = DeviceMemory(free=80 * GIB, total=80 * GIB)
    one = of_shape(device=Device.cuda)
    found = cuda_arguments(one, SEQUENCES, memory)
    assert found["kv_cache_memory_bytes"] == cache_bytes(one, SEQUENCES)
    assert found["gpu_memory_utilization"] == pytest.approx(6.3 / 80, abs=0.001)


@pytest.mark.parametrize(
    ("total", "share"), [pytest.param(1000 * GIB, 0.05), pytest.param(6 * GIB, 0.95)]
)
def test_the_share_stays_within_what_vllm_takes(total, share):
    found = cuda_arguments(of_shape(device=Device.cuda), 1, DeviceMemory(free=total, total=total))
    assert found["gpu_memory_utilization"] == share


@pytest.mark.parametrize(
    ("changes", "fills"),
    [
        pytest.param({"target": HUB}, True, id="a target by hub name"),
        pytest.param({"target": HUB, "gamma": 0}, True, id="its baseline too"),
        pytest.param(
            {"sd": SdSpec(method=DraftMethod.eagle, draft=HUB)}, True, id="a head by hub name"
        ),
        pytest.param(
            {"sd": SdSpec(method=DraftMethod.eagle, draft=HUB), "gamma": 0}, False, id="without it"
        ),
        pytest.param({}, False, id="models that are here"),
        pytest.param({"target": HUB, "device": Device.cpu}, False, id="a processor's memory"),
    ],
)
def test_a_model_that_cannot_be_weighed_gets_a_gpu_of_its_own(changes, fills):
    """Its cache would be too small for a single sequence if it were given the least size."""
    one = point(**{"target": SHAPE, "sd": FIXED, "device": Device.cuda} | changes)
    assert fills_device(one) is fills
    if one.device is Device.cuda:
        told = cuda_arguments(one, 256, DeviceMemory(free=80 * GIB, total=80 * GIB))
        assert bool(told) is not fills


def test_a_processor_says_what_is_free():
    memory = device_memory(Device.cpu)
    assert 0 < memory.free < memory.total


def test_longer_outputs_need_a_larger_cache():
    longer = of_shape(workload=replace(WORK, output_tokens=28))  # 24 + 4 x 28 + 32 -> 192
    assert cache_bytes(longer, SEQUENCES) == 1.5 * cache_bytes(of_shape(), SEQUENCES)


def test_the_runtime_of_a_gpu_is_larger():
    assert RUNTIME_BYTES[Device.cuda] > RUNTIME_BYTES[Device.cpu]
