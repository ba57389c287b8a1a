"""The same guarantees on a GPU: deselected unless asked for with `-m gpu`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from moesd_dist.engines.transformers.clocks import CudaClock
from moesd_dist.engines.transformers.engine import TransformersEngine
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

pytestmark = pytest.mark.gpu

TARGET = ModelSpec(name="embedded", source=ModelSource.embedded, location="target")
DRAFT = replace(TARGET, name="draft", location="draft")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_embedded_pair_runs_on_cuda(temperature):
    engine = TransformersEngine(target=TARGET, draft=DRAFT, device=Device.cuda, threads=1)
    point = SweepPoint(
        engine="transformers",
        target=TARGET,
        workload=WorkloadSpec(
            name="stdlib_code", prompt_tokens_min=16, prompt_tokens_max=24, output_tokens=12
        ),
        batch_size=8,
        gamma=3,
        sd=SdSpec(method=DraftMethod.draft_model, draft=DRAFT),
        temperature=temperature,
        device=Device.cuda,
        hardware="cuda",
        protocol=Protocol(window_tokens=96),
    )
    engine.warm_up(point)
    found = engine.measure(point, 0)
    assert found.tokens == found.accepted + found.sequence_rounds
    assert found.accepted_per_position[0] / found.sequence_rounds > 0.3
    tokens = found.rounds * 8 * 4
    assert [sum(layer) for layer in found.expert_load] == [tokens * 8] * 4
    assert found.target_s > 0


def test_events_time_the_device_and_not_the_launch():
    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    clock = CudaClock()
    matrix @ matrix
    torch.cuda.synchronize()
    clock.start()
    matrix @ matrix
    clock.lap()
    (seconds,) = clock.seconds()
    assert seconds > 2 * 8192**3 / 3e15  # no device does it faster
