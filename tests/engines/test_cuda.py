"""The same guarantees on a GPU: deselected unless asked for with `-m gpu`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from moesd_dist.engines.transformers.calibration import Effort, measure
from moesd_dist.engines.transformers.clocks import CudaClock
from moesd_dist.engines.transformers.engine import TransformersEngine
from moesd_dist.records import (
    Device,
    DraftMethod,
    ModelSource,
    ModelSpec,
    Protocol,
    RankPlace,
    SdSpec,
    SweepPoint,
    WorkloadSpec,
)

pytestmark = pytest.mark.gpu

TARGET = ModelSpec(name="embedded", source=ModelSource.embedded, location="target")
DRAFT = replace(TARGET, name="draft", location="draft")
PLAIN = SweepPoint(
    engine="transformers",
    target=TARGET,
    workload=WorkloadSpec(
        name="stdlib_code", prompt_tokens_min=16, prompt_tokens_max=24, output_tokens=12
    ),
    batch_size=8,
    gamma=0,
    device=Device.cuda,
    hardware="cuda",
    protocol=Protocol(window_tokens=96),
)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_embedded_pair_runs_on_cuda(temperature):
    engine = TransformersEngine(target=TARGET, draft=DRAFT, device=Device.cuda, threads=1)
    point = replace(
        PLAIN,
        gamma=3,
        sd=SdSpec(method=DraftMethod.draft_model, draft=DRAFT),
        temperature=temperature,
    )
    engine.warm_up(point)
    found = engine.measure(point, 0)
    assert found.tokens == found.accepted + found.sequence_rounds
    assert found.accepted_per_position[0] / found.sequence_rounds > 0.3
    tokens = found.rounds * 8 * 4
    assert [sum(layer) for layer in found.expert_load] == [tokens * 8] * 4
    assert found.target_s > 0


def test_a_rank_alone_times_its_experts_apart():
    """What a forecast over several ranks is made from."""
    engine = TransformersEngine(target=TARGET, draft=None, device=Device.cuda, threads=1)
    engine.warm_up(PLAIN)
    found = engine.measure(PLAIN, 0)
    (rank,) = found.exchange.ranks
    assert 0 < sum(rank.expert_s) < rank.target_s
    assert sum(rank.dispatch_s) == sum(rank.combine_s) == 0


def test_a_gpu_is_calibrated():
    effort = Effort(device=Device.cuda, span_s=0.2)
    found = measure(RankPlace(), nodes=1, effort=effort)
    assert found.cpu_model == torch.cuda.get_device_name()
    assert 1e11 < found.rates.read_bytes_per_s < 2e13  # waited for: a launch alone would be faster
    assert 1e12 < found.rates.gemm_flops < 1e16


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
