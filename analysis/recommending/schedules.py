"""A schedule of gamma by batch size as the serving engines read it."""

# vLLM 0.32 (vllm/v1/spec_decode/dynamic/utils.py and its page on dynamic speculative decoding):
# inclusive ranges that start at 1 and do not overlap, K from 0 on and at most num_speculative_tokens,
# which is at least 1; a gap or the tail takes the K before it. With data parallelism the table is
# ignored. SGLang 0.5.23 (sglang/srt/speculative/adaptive_spec_params.py): batch sizes from which on a
# slot holds, as text, each with the steps that it may try; EAGLE and EAGLE3 with
# --speculative-eagle-topk 1 alone, and not with data-parallel attention.

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from moesd_dist.records import DraftMethod, ModelSource, SdSpec
from moesd_dist.theory.choices.conditioning import Estimate
from moesd_dist.theory.choices.recommendation import Choice, intervals

Spans = Sequence[tuple[int, int, int]]

DATA_PARALLEL = (
    "ranks of a data-parallel layout schedule on their own; with a gamma by batch size they could "
    "choose different ones and wait for each other in a collective for ever (vLLM drops the table, "
    "SGLang its adaptive steps), so all run one static gamma"
)
TESTED = (
    "vLLM tests such a table with EAGLE, EAGLE-3 and DFlash; SGLang takes one with EAGLE and EAGLE-3 "
    "and top-k 1 alone."
)


def vllm_config(spans: Spans, sd: SdSpec) -> dict[str, Any] | None:
    """What --speculative-config takes; None where SD is off throughout: leave the option away.

    Raises ValueError if the spans do not start at 1 or leave gaps.
    """
    _check(spans)
    most = max(gamma for _, _, gamma in spans)
    if not most:
        return None
    return {
        **vllm_method(sd),
        "num_speculative_tokens": most,
        "num_speculative_tokens_per_batch_size": [list(span) for span in spans],
    }


def static_vllm_config(gamma: int, sd: SdSpec) -> dict[str, Any] | None:
    """One gamma at all batch sizes, as data-parallel layouts need it; None for gamma 0."""
    return {**vllm_method(sd), "num_speculative_tokens": gamma} if gamma else None


def vllm_method(sd: SdSpec) -> dict[str, Any]:
    """The method by vLLM's names; an embedded draft stands with its name, put a path in its place."""
    if sd.method is DraftMethod.ngram:
        return {
            "method": "ngram",
            "prompt_lookup_max": sd.ngram_max,
            "prompt_lookup_min": sd.ngram_min,
        }
    draft = sd.draft
    on_disk = draft is not None and draft.source is ModelSource.checkpoint
    name = (draft.location if on_disk else draft.name) if draft else ""
    return {"method": "draft_model", "model": name}


def sglang_config(choices: Sequence[Choice]) -> dict[str, Any]:
    """What --speculative-adaptive-config names: a slot for each interval, by its first batch size.

    Where a choice is open its rivals are candidates too, and SGLang picks by what is accepted; one
    candidate alone is a fixed number of steps.
    """
    slots = {}
    for first, last, gamma in intervals(choices):
        inside = [c for c in choices if first <= c.batch_size <= last]
        rivals = {rival for choice in inside for rival in choice.rivals}
        slots[str(first)] = {"candidate_steps": sorted({gamma, *rivals})}
    return slots


def write_csv(
    path: Path,
    choices: Sequence[Choice],
    estimate: Estimate,
    measured: Mapping[int, Collection[int]],
    *,
    source: str = "measured",
) -> None:
    """One row a batch size: the choice, which gammas were measured, the expected speedup at each."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            ["batch_size", "gamma", "speedup", "speedup_low", "speedup_high", "decided", "rivals",
             "chance", "measure_next_batch_size", "measure_next_gamma", "measured_gammas", "source",
             *(f"speedup_gamma_{gamma}" for gamma in estimate.gammas)]
        )  # fmt: skip
        for choice, logs in zip(choices, estimate.log_speedup, strict=True):
            following = choice.measure_next or ("", "")
            figures = (choice.speedup, choice.low, choice.high)
            table.writerow(
                [choice.batch_size, choice.gamma, *(f"{x:.4f}" for x in figures),
                 str(choice.decided).lower(), " ".join(map(str, choice.rivals)),
                 f"{choice.chance:.3f}", *following,
                 " ".join(map(str, sorted(measured.get(choice.batch_size, ())))), source,
                 *map(_exp, logs)]
            )  # fmt: skip


def _exp(log: float) -> str:
    """Empty where the point was neither measured nor predicted."""
    return "" if math.isnan(log) else f"{math.exp(log):.4f}"


def _check(spans: Spans) -> None:
    """The rules of vLLM, and no gaps: it would fill them with the K before."""
    expected = 1
    for first, last, gamma in spans:
        if first != expected or last < first or gamma < 0:
            raise ValueError(
                f"spans must follow each other from 1 on with gamma 0 or more, got {list(spans)}"
            )
        expected = last + 1
    if not spans:
        raise ValueError("a schedule needs at least one span, got none")
