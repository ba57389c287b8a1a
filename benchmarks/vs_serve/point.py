"""The small embedded pair as a point, and prompts that are the same tokens for server and engine."""

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
from moesd_dist.workloads.prompts import draw_prompts


def embedded(part: str) -> ModelSpec:
    return ModelSpec(
        name=f"embedded_{part}", source=ModelSource.embedded, location=part, dtype="float32"
    )


def point_of(*, prompts: int, batch_size: int, gamma: int, output_tokens: int) -> SweepPoint:
    """Its repeats are the batches that the server gets as one list."""
    batches, rest = divmod(prompts, batch_size)
    if rest or not batches:
        raise ValueError(
            f"--prompts must be a multiple of --batch-size {batch_size}, got {prompts}"
        )
    return SweepPoint(
        engine="vllm",
        target=embedded("target"),
        workload=WorkloadSpec(
            name="stdlib_code",
            prompt_tokens_min=32,
            prompt_tokens_max=96,
            output_tokens=output_tokens,
        ),
        batch_size=batch_size,
        gamma=gamma,
        sd=SdSpec(method=DraftMethod.draft_model, draft=embedded("draft")),
        protocol=Protocol(repeats=batches, window_tokens=1, end_to_end_repeats=batches),
    )


def draw(point: SweepPoint, tokenizer: Any) -> list[list[list[int]]]:
    """Batch by batch as our engine draws them; ValueError if a text would not come back as its tokens."""
    batches = [
        draw_prompts(
            point.workload,
            count=point.batch_size,
            repeat=repeat,
            encode=lambda text: tokenizer.encode(text, add_special_tokens=False),
            vocab_size=len(tokenizer),
        )
        for repeat in range(point.protocol.repeats)
    ]
    # As the server does: with whatever special tokens the tokenizer adds.
    changed = [p for batch in batches for p in batch if tokenizer.encode(tokenizer.decode(p)) != p]
    if changed:
        raise ValueError(f"{len(changed)} prompts change on their way through text; draw others")
    return batches
