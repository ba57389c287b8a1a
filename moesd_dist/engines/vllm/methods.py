"""SD methods as vLLM's speculative config, and what each of them needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from moesd_dist.engines.vllm.checkpoint import hf_overrides, materialised
from moesd_dist.models.sources import resolve_config
from moesd_dist.records import DraftMethod, SweepPoint
from moesd_dist.theory.acceptance import unconditional_from_conditional

PROPOSERS = "moesd_dist.engines.vllm.proposers"
OURS = frozenset({"method", "num_speculative_tokens"})  # what the point itself says


def speculative_config(point: SweepPoint) -> dict[str, Any] | None:
    """None for the baseline. `sd.options` come last, so that they can change what is set here."""
    if point.gamma == 0:
        return None
    return {
        **_METHODS[point.sd.method](point),
        "num_speculative_tokens": point.gamma,
        **_synthetic(point),
        **_schedule(point),
        **{key: json.loads(text) for key, text in point.sd.options},
    }


def check_method(point: SweepPoint) -> None:
    """ValueError for what no build of vLLM could do."""
    sd = point.sd
    if clash := sorted(OURS & dict(sd.options).keys()):
        raise ValueError(
            f"sd.options.{clash[0]} is said by sd.method and sweep.gamma; leave it out"
        )
    if point.controlled_acceptance and point.temperature > 0:
        raise ValueError(
            f"sd={sd.method} replays what the target chooses at temperature 0, got {point.temperature}; "
            "use sweep.temperature=[0], or sd=synthetic"
        )
    if point.controlled_acceptance and point.synthetic_acceptance:
        raise ValueError(f"sd={sd.method} is verified; leave sd.synthetic_acceptance away")
    if sd.schedule and point.gamma != (most := max(tokens for *_, tokens in sd.schedule)):
        raise ValueError(
            f"a dynamic schedule drafts at most gamma tokens: sweep.gamma must be [{most}], got {point.gamma}"
        )
    if sd.schedule and point.layout.dp_size > 1:
        raise ValueError(
            f"vLLM drops a dynamic schedule under data parallelism, got dp_size {point.layout.dp_size}; "
            "use layout.dp_size=1, or leave sd.schedule away"
        )
    if sd.method is DraftMethod.mtp:
        _check_mtp(point)


def missing_package(point: SweepPoint) -> str:
    """What the point's method needs and this machine lacks, in a sentence; empty if nothing."""
    if point.gamma and point.sd.method is DraftMethod.suffix and not find_spec("arctic_inference"):
        return (
            "sd=suffix needs arctic-inference, which is not installed: pip install arctic-inference"
        )
    return ""


def _model(point: SweepPoint) -> dict[str, Any]:
    assert point.sd.draft is not None  # build saw to it
    if hf_overrides(point.sd.draft):
        raise ValueError(
            f"vLLM takes no overrides for a draft by hub name, {point.sd.draft.name} has some; "
            "download it and give the folder"
        )
    place = materialised(point.sd.draft)
    own: dict[str, Any] = {"method": point.sd.method.value, "model": place.model}
    if place.load_format != materialised(point.target).load_format:
        own["draft_load_config"] = {"load_format": place.load_format}
    return own


def _ngram(point: SweepPoint) -> dict[str, Any]:
    return {
        "method": "ngram",
        "prompt_lookup_min": point.sd.ngram_min,
        "prompt_lookup_max": point.sd.ngram_max,
    }


def _by_name(point: SweepPoint) -> dict[str, Any]:
    return {"method": point.sd.method.value}


def _own(name: str) -> Callable[[SweepPoint], dict[str, Any]]:
    return lambda _: {"method": "custom_class", "model": f"{PROPOSERS}.{name}"}


_METHODS: Mapping[DraftMethod, Callable[[SweepPoint], dict[str, Any]]] = {
    DraftMethod.draft_model: _model,
    DraftMethod.eagle: _model,
    DraftMethod.eagle3: _model,
    DraftMethod.medusa: _model,
    DraftMethod.ngram: _ngram,
    DraftMethod.suffix: _by_name,
    DraftMethod.mtp: _by_name,
    DraftMethod.oracle: _own("OracleProposer"),
    DraftMethod.fixed: _own("FixedProposer"),
}


def _synthetic(point: SweepPoint) -> dict[str, Any]:
    """vLLM takes the chance that a position is accepted at all, ours are given all before it."""
    if not point.synthetic_acceptance:
        return {}
    known = point.sd.synthetic_acceptance
    rates = (*known, *[known[-1]] * point.gamma)[: point.gamma]  # the last one goes on
    return {
        "rejection_sample_method": "synthetic",
        "synthetic_acceptance_rates": unconditional_from_conditional(rates).tolist(),
    }


def _schedule(point: SweepPoint) -> dict[str, Any]:
    if not point.sd.schedule:
        return {}
    return {"num_speculative_tokens_per_batch_size": [list(entry) for entry in point.sd.schedule]}


def _check_mtp(point: SweepPoint) -> None:
    config = resolve_config(point.target) or {}
    if config and not config.get("num_nextn_predict_layers"):
        raise ValueError(
            f"sd=mtp needs a target with multi-token-prediction layers; {point.target.name} has none "
            "(num_nextn_predict_layers); choose another sd"
        )
