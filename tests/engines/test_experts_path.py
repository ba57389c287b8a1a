"""The packed experts compute what transformers' own compute."""

from __future__ import annotations

import pytest
import torch
from transformers.integrations.moe import grouped_mm_experts_forward

from moesd_dist.engines.transformers import experts_path
from moesd_dist.engines.transformers.load import load_model
from moesd_dist.engines.transformers.routing import RoutingRecorder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def module(kit):
    """One experts module in bf16, with its weights kept beside for the reference."""
    spec = kit.spec_of("tiny_qwen3_moe")
    model = load_model(spec, CPU).bfloat16()
    found = experts_path.experts_modules(model)[0]
    if not experts_path.can_pack(found):
        pytest.skip("this torch lacks the packing operators")
    return found


@pytest.mark.parametrize("tokens", [1, 3, 64])
def test_packed_experts_agree_with_grouped_mm(module, tokens):
    generator = torch.Generator().manual_seed(tokens)
    hidden = torch.randn(tokens, 64, generator=generator).bfloat16()
    chances = torch.rand(tokens, 8, generator=generator)
    weights, chosen = torch.topk(chances.softmax(-1), 2)
    weights = weights.bfloat16()
    counts = torch.bincount(chosen.flatten(), minlength=8)
    packed = experts_path.PackedExperts(module).forward(hidden, chosen, weights, counts)
    wanted = grouped_mm_experts_forward(module, hidden, chosen, weights)
    assert packed.shape == wanted.shape
    torch.testing.assert_close(packed, wanted, rtol=0.03, atol=0.02 * float(wanted.abs().max()))


def test_float32_is_not_packed(kit):
    model = load_model(kit.spec_of("tiny_qwen3_moe"), CPU)
    recorder = RoutingRecorder(2, 8, CPU)
    assert experts_path.install(model, implementation="auto", recorder=recorder) == "grouped_mm"


def test_the_recorder_counts_loads_and_distinct_experts():
    recorder = RoutingRecorder(2, 4, CPU)
    chosen = torch.tensor([[0, 1], [1, 3]])
    recorder.add(1, recorder.count(chosen), 2)
    load, seen, forwards = recorder.take()
    assert load.tolist() == [[0, 0, 0, 0], [1, 2, 0, 1]]
    assert (seen, forwards) == ((0, 3), 1)
    assert recorder.take()[1:] == ((0, 0), 0)
