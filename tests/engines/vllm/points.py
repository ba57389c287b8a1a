"""Small points of the embedded pair, as the vLLM engine is asked to measure them."""

from __future__ import annotations

from typing import Any

from moesd_dist.records import (
    DraftMethod,
    ModelSource,
    ModelSpec,
    Protocol,
    SdSpec,
    SweepPoint,
    WorkloadSpec,
)

TARGET = ModelSpec(name="embedded", source=ModelSource.embedded, location="target", dtype="float32")
DRAFT = ModelSpec(name="draft", source=ModelSource.embedded, location="draft", dtype="float32")
PAIR = SdSpec(method=DraftMethod.draft_model, draft=DRAFT)
FIXED = SdSpec(method=DraftMethod.fixed)
WORK = WorkloadSpec(
    name="stdlib_code", prompt_tokens_min=16, prompt_tokens_max=24, output_tokens=12
)


def point(**changes: Any) -> SweepPoint:
    fields: dict[str, Any] = {
        "engine": "vllm",
        "target": TARGET,
        "workload": WORK,
        "batch_size": 4,
        "gamma": 3,
        "sd": PAIR,
        "protocol": Protocol(repeats=2, warmup_rounds=1, window_tokens=1),
    }
    return SweepPoint(**(fields | changes))
