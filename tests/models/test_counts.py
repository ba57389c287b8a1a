"""Counts are those of the model as it runs, and unknown sizes are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moesd_dist.hardware import model_named
from moesd_dist.models.counts import counts_of
from moesd_dist.records import ModelSource, ModelSpec
from moesd_dist.specs import model_spec

EMBEDDED = ModelSpec(name="embedded", source=ModelSource.embedded, location="target")


def named(name: str) -> ModelSpec:
    return model_spec(model_named(name))


def test_the_counts_of_the_papers_target_are_those_of_its_config() -> None:
    found = counts_of(named("qwen2_57b_a14b"))
    assert (found.num_layers, found.num_experts, found.top_k) == (28, 64, 8)
    assert found.expert_params == 3 * 3584 * 2560
    assert found.kv_values_per_token == 28 * 2 * 4 * 128
    assert found.bytes_per_value == 2.0


def test_a_tied_draft_streams_all_its_parameters() -> None:
    found = counts_of(named("qwen2_0_5b"))
    assert found.streamed_non_expert_params == 494_032_768
    assert (found.num_experts, found.num_moe_layers, found.expert_params) == (0, 0, 0)


def test_widening_and_overrides_and_dtype_are_counted() -> None:
    plain = counts_of(EMBEDDED)
    wide = counts_of(replace(EMBEDDED, widen_hidden=8, widen_expert=16, widen_heads=4))
    assert wide.hidden_size == 8 * plain.hidden_size
    assert wide.expert_params == 8 * 16 * plain.expert_params
    fewer = replace(EMBEDDED, overrides=(("num_layers", "2"), ("top_k", "4")), dtype="float32")
    found = counts_of(fewer)
    assert (found.num_layers, found.top_k, found.bytes_per_value) == (2, 4, 4.0)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        pytest.param(
            ModelSpec(name="m", source=ModelSource.checkpoint, location="org/name"),
            "the size of org/name is in a config that is not here",
            id="a hub name",
        ),
        pytest.param(
            ModelSpec(name="m", source=ModelSource.shape, config=(("model_type", '"rwkv"'),)),
            "the shape of model_type 'rwkv' is not known",
            id="an unknown family",
        ),
    ],
)
def test_an_unknown_size_is_one_line(spec: ModelSpec, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        counts_of(spec)
