"""What can be known to be wrong before anything is loaded: one clear line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import get_type_hints

from omegaconf import DictConfig, OmegaConf

from moesd_dist.engines.vllm.check import check_vllm
from moesd_dist.models.families import is_known
from moesd_dist.models.shape import PREDICTED_ONLY, ModelShape, shape_of
from moesd_dist.models.sources import resolve_config
from moesd_dist.records import (
    Device,
    DraftMethod,
    LayoutSpec,
    ModelSource,
    ModelSpec,
    SweepPoint,
)
from moesd_dist.records.calibration import ALL_GATHER, ALL_TO_ALL
from moesd_dist.workloads.prompts import NAMES

_OURS = (DraftMethod.none, DraftMethod.draft_model, DraftMethod.ngram)  # what our own rounds do


def check_known_keys(config: DictConfig, schema: type, path: str = "") -> None:
    """Refuses keys that no schema has: Hydra's `+key=value` would add them unseen."""
    known = get_type_hints(schema)
    for key in map(str, config):
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean {path}{near[0]}?" if near else f"; there are {', '.join(known)}"
            raise ValueError(f"unknown key {path}{key}{hint}")
        inner = None if OmegaConf.is_missing(config, key) else config[key]
        if isinstance(inner, DictConfig) and is_dataclass(kind := OmegaConf.get_type(inner)):
            check_known_keys(inner, kind, f"{path}{key}.")


def check_points(points: Sequence[SweepPoint]) -> None:
    """ValueError for the first point that could never be measured as asked."""
    for point in points:
        _check_settings(point)
        _check_workload(point)
    if len(names := {p.hardware for p in points if not p.simulated}) > 1:
        raise ValueError(
            f"an axis over hardware is for predictions, got {', '.join(sorted(names))}; use "
            "engine=analytic, or measure one sweep on each"
        )
    for point in {(p.target, p.sd.draft, p.top_k, p.gamma): p for p in points}.values():
        _check_models(point)


def check_reach(points: Sequence[SweepPoint]) -> None:
    """ValueError for a gamma beyond the positions that an acceptance file knows: not unasked."""
    for point in points:
        known = point.sd.synthetic_acceptance
        if known and point.gamma > len(known) and 0.0 not in known:
            raise ValueError(
                f"sd.acceptance knows {len(known)} positions, sweep.gamma asks for {point.gamma}; lower it, "
                f"or repeat the last rate {known[-1]:.3g} with sd.repeat_last_rate=true"
            )


def _check_settings(point: SweepPoint) -> None:
    least = {"batch_size": point.batch_size, "threads": point.threads}
    least |= {"repeats": point.protocol.repeats, "output_tokens": point.workload.output_tokens}
    for name, value in least.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if point.gamma and point.sd.method is DraftMethod.none:
        raise ValueError(f"gamma {point.gamma} needs a draft method; choose sd=... or gamma=[0]")
    if point.engine == "vllm":
        check_vllm(point)
    elif point.sd.method not in _OURS or point.sd.schedule or point.sd.options:
        raise ValueError(
            f"sd.method {point.sd.method} with its schedule and options is vLLM's; use engine=vllm, or one of "
            f"{', '.join(sorted(_OURS))} without them"
        )
    if not point.simulated and PREDICTED_ONLY in (m.dtype for m in _models(point)):
        raise ValueError(
            f"dtype {PREDICTED_ONLY} is for predictions; use engine=analytic, or bfloat16"
        )
    if point.simulated:
        _check_simulation(point)
    elif point.engine == "transformers":
        _check_ranks(point.layout)
    if point.experts_implementation == "packed" and point.device is not Device.cpu:
        raise ValueError("packed experts are for a CPU; use engine.experts_implementation=auto")


def _models(point: SweepPoint) -> list[ModelSpec]:
    return [point.target, *([point.sd.draft] if point.sd.draft else [])]


def _check_ranks(layout: LayoutSpec) -> None:
    """The transformers engine shares out experts over data-parallel ranks, and nothing else."""
    if layout.tp_size != 1 or layout.dp_size != layout.ep_size:
        raise ValueError(
            "the transformers engine has no tensor parallelism, and its data-parallel ranks share "
            f"the experts: tp_size 1 and dp_size = ep_size; got {layout.tp_size}, {layout.dp_size} "
            f"and {layout.ep_size}; use layout=dp2_ep or layout.dp_size=N layout.expert_parallel=true"
        )
    if layout.eplb:
        raise ValueError(
            "layout.eplb moves experts while vLLM runs; the transformers engine places them once: "
            "layout.expert_placement=balanced layout.expert_loads=FILE"
        )
    if (layout.expert_placement == "balanced") is not bool(layout.loads_digest):
        raise ValueError(
            "layout.expert_placement=balanced and layout.expert_loads=FILE go together; "
            f"got {layout.expert_placement or 'linear'!r} {'with' if layout.loads_digest else 'without'} loads"
        )
    if layout.redundant_experts and not layout.loads_digest:
        raise ValueError(
            "layout.redundant_experts are replicas of the heaviest experts: give their loads by "
            "layout.expert_placement=balanced layout.expert_loads=FILE"
        )
    if layout.all2all_backend not in ("", ALL_TO_ALL, ALL_GATHER):
        raise ValueError(
            f"layout.all2all_backend of the transformers engine is {ALL_TO_ALL} or {ALL_GATHER}; "
            f"got {layout.all2all_backend!r}"
        )


def _check_simulation(point: SweepPoint) -> None:
    """A formula verifies no tokens and knows two ways to share a model out, one at a time."""
    layout = point.layout
    if layout.dp_size != layout.ep_size or layout.dp_size > 1 < layout.tp_size:
        raise ValueError(
            "the analytic engine predicts tensor parallelism alone, or data-parallel ranks that "
            "share the experts: dp_size = ep_size with tp_size 1; got "
            f"{layout.dp_size}, {layout.ep_size} and {layout.tp_size}"
        )
    if layout.eplb or layout.redundant_experts or layout.loads_digest:
        raise ValueError(
            "the analytic engine knows no expert from another, so it cannot place them by their "
            "loads; leave layout.eplb, redundant_experts and expert_loads away"
        )
    if point.device is Device.cpu and layout.tp_size > 1:
        raise ValueError(
            f"tp_size {layout.tp_size} needs links between devices, a cpu has none; use layout.tp_size=1"
        )
    if point.gamma and not point.synthetic_acceptance:
        raise ValueError(
            f"the analytic engine cannot verify the tokens of gamma {point.gamma}; give their rates: "
            "sd.synthetic_acceptance=[0.8] or sd.acceptance=FILE"
        )


def _check_workload(point: SweepPoint) -> None:
    name = point.workload.name
    if name not in NAMES:
        raise ValueError(f"workload must be one of {', '.join(NAMES)}; got {name!r}")
    # Nothing is tokenised in a simulation: a workload stands for its lengths.
    if point.target.source is ModelSource.shape and name != "random" and not point.simulated:
        raise ValueError(
            f"model {point.target.name} is a shape without a tokenizer; use workload=random"
        )


def _check_models(point: SweepPoint) -> None:
    """Experts, context and vocabulary, as far as the configs are here and their family is known."""
    target = _shape(point.target)
    draft = _shape(point.sd.draft) if point.sd.draft else None
    if target is None:
        return
    _check_top_k(point, target)
    if point.layout.ep_size > 1 and not target.num_experts:
        raise ValueError(
            f"{point.target.name} is dense: it has no experts to share; use layout=single or layout.tp_size"
        )
    for spec, shape in ((point.target, target), (point.sd.draft, draft)):
        if spec is not None and shape is not None:
            _check_context(point, spec, shape)
    if draft is not None and draft.vocab_size != target.vocab_size:
        raise ValueError(
            f"draft and target must share a vocabulary: {point.sd.draft and point.sd.draft.name} has "
            f"{draft.vocab_size} tokens, {point.target.name} {target.vocab_size}; "
            "choose a draft of the same family"
        )


def _shape(spec: ModelSpec) -> ModelShape | None:
    """None for a hub name and for a family whose shape is not modelled: the engine will see."""
    config = resolve_config(spec)
    return shape_of(config) if config is not None and is_known(config) else None


def _check_top_k(point: SweepPoint, target: ModelShape) -> None:
    if point.top_k is None:
        return
    if not target.num_experts:
        raise ValueError(f"{point.target.name} is dense; leave top_k unset")
    if not 1 <= point.top_k <= target.num_experts:
        raise ValueError(
            f"top_k {point.top_k} exceeds num_experts {target.num_experts} of {point.target.name}; "
            f"use 1..{target.num_experts}"
        )


def _check_context(point: SweepPoint, spec: ModelSpec, shape: ModelShape) -> None:
    work = point.workload
    needed = work.prompt_tokens_max + work.output_tokens + point.gamma + 1
    if needed > shape.max_context:
        raise ValueError(
            f"prompt {work.prompt_tokens_max} + output {work.output_tokens} + gamma {point.gamma} + 1 = "
            f"{needed} tokens exceed the context of {spec.name}, {shape.max_context}; "
            "lower workload.prompt_tokens_max"
        )
