"""SD methods with heads of their own, and schedules: dummy weights, so that they run, not that they accept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

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
from moesd_dist.specs import as_items
from tests.engines.vllm.points import point
from tests.engines.vllm.tiny import COMMON, DEEPSEEK, DRAFTERS

BATCH, GAMMA = 4, 2
QWEN3 = {"model_type": "qwen3_moe", "head_dim": 32, "moe_intermediate_size": 64, "num_experts": 16}
WORK = WorkloadSpec(name="random", prompt_tokens_min=8, prompt_tokens_max=12, output_tokens=12)


def shape(name: str, config: Mapping[str, Any]) -> ModelSpec:
    return ModelSpec(
        name=name, source=ModelSource.shape, config=as_items(dict(config)), dtype="float32"
    )


MOE = shape("moe", {**COMMON, **QWEN3, "num_experts_per_tok": 2})
MTP = shape("mtp", {**COMMON, **DEEPSEEK, "model_type": "deepseek_v3"})
HEADS = {name: shape(name, config) for name, config in DRAFTERS.items()}
DENSE = shape("dense", {**COMMON, "model_type": "qwen3", "head_dim": 32, "num_hidden_layers": 1})
CASES = {
    "eagle": (MOE, SdSpec(method=DraftMethod.eagle, draft=HEADS["eagle"])),
    "eagle3": (MOE, SdSpec(method=DraftMethod.eagle3, draft=HEADS["eagle3"])),
    "medusa": (MOE, SdSpec(method=DraftMethod.medusa, draft=HEADS["medusa"])),
    "mtp": (MTP, SdSpec(method=DraftMethod.mtp)),
    "dynamic": (
        MOE,
        SdSpec(method=DraftMethod.draft_model, draft=DENSE, schedule=((1, 3, GAMMA), (4, 1024, 1))),
    ),
}


def of(case: str, batch_size: int = BATCH) -> SweepPoint:
    target, sd = CASES[case]
    protocol = Protocol(repeats=1, warmup_rounds=1, window_tokens=1)
    fields = {"target": target, "sd": sd, "gamma": GAMMA, "workload": WORK, "protocol": protocol}
    return point(batch_size=batch_size, **fields)


@pytest.fixture
def engine(vllm_env: dict[str, str]) -> Iterator[Any]:
    from moesd_dist.engines.vllm.engine import VllmEngine
    from moesd_dist.engines.vllm.host import Timeouts

    made = VllmEngine(
        device=Device.cpu, place=RankPlace(), timeouts=Timeouts(start_s=180, answer_s=120)
    )
    yield made
    made.close()


@pytest.mark.parametrize("case", [name for name in CASES if name != "dynamic"])
def test_a_head_drafts_and_the_target_verifies(engine, case: str):
    wanted = of(case)
    engine.warm_up(wanted)
    found = engine.measure(wanted, 0)
    assert found.drafted == found.sequence_rounds * GAMMA
    assert found.verified_tokens == found.sequence_rounds * (GAMMA + 1)
    assert min(found.draft_s, found.target_s, found.reject_s) > 0
    assert found.layer_forwards > 0
    assert wanted.random_weights


def test_a_schedule_drafts_less_for_a_larger_batch(engine):
    drafted = {}
    for batch_size in (2, 8):
        found = engine.measure(of("dynamic", batch_size), 0)
        drafted[batch_size] = found.drafted / found.sequence_rounds
    assert drafted == {2: pytest.approx(GAMMA), 8: pytest.approx(1.0)}
