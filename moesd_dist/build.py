"""Configs become objects here, and only here: the one file that knows every implementation."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf

from moesd_dist.config import Conf, EngineKind, ForeignLoadPolicy, Launcher, ModelConf, SdConf
from moesd_dist.models.shape import ModelShape, shape_of
from moesd_dist.models.sources import resolve_config
from moesd_dist.ports import Engine, Tracker
from moesd_dist.records import (
    Device,
    DraftMethod,
    LayoutSpec,
    ModelSource,
    ModelSpec,
    Protocol,
    SdSpec,
    SweepPoint,
    WorkloadSpec,
)
from moesd_dist.sweep.driver import Executor, InlineExecutor
from moesd_dist.sweep.grid import expand
from moesd_dist.sweep.pairing import EngineKey, LoadLimit
from moesd_dist.workloads.prompts import NAMES, read_jsonl


def conf_from(config: DictConfig) -> Conf:
    """The checked configuration: every schema's own rules have been applied."""
    check_known_keys(config, Conf)
    conf = OmegaConf.to_object(config)
    assert isinstance(conf, Conf)
    return conf


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


def points_from(conf: Conf) -> list[SweepPoint]:
    """The sweep's points; ValueError for anything that could never be measured."""
    base = SweepPoint(
        engine=conf.engine.kind.value,
        target=model_spec(conf.model),
        workload=workload_spec(conf),
        batch_size=1,
        gamma=0,
        sd=sd_spec(conf.sd),
        top_k=conf.model.top_k,
        hardware=conf.hardware.name,
        device=conf.hardware.device,
        threads=conf.hardware.threads,
        experts_implementation=conf.engine.experts_implementation,
        layout=LayoutSpec(
            tp_size=conf.layout.tp_size, dp_size=conf.layout.dp_size, ep_size=conf.layout.ep_size
        ),
        protocol=Protocol(
            repeats=conf.sweep.repeats,
            warmup_rounds=conf.sweep.warmup_rounds,
            window_tokens=conf.sweep.window_tokens,
            end_to_end_repeats=conf.sweep.end_to_end_repeats,
        ),
    )
    points = expand(base, axes_of(conf), control=conf.sweep.control)
    check_points(points)
    return points


def axes_of(conf: Conf) -> dict[str, list[Any]]:
    """Axes with their values, the batch size innermost so that curves fill from the left."""
    sweep = conf.sweep
    axes: dict[str, list[Any]] = {"workload.name": sweep.workload} if sweep.workload else {}
    if sweep.top_k:
        axes["top_k"] = sweep.top_k
    axes |= {"temperature": sweep.temperature, **sweep.axes}
    axes |= {"batch_size": sweep.batch_size, "gamma": sweep.gamma}
    for name, values in axes.items():
        if not isinstance(values, list):
            raise ValueError(
                f"sweep axis {name} must be a list, got {values!r}; did you mean [{values}]?"
            )
    return axes


def model_spec(conf: ModelConf) -> ModelSpec:
    if conf.source is ModelSource.checkpoint and not conf.location:
        raise ValueError(
            "a checkpoint needs its location: give model.location (or sd.draft.location) a folder or a hub name"
        )
    layers = {"num_layers": conf.num_layers} if conf.num_layers is not None else {}
    return ModelSpec(
        name=conf.name,
        source=conf.source,
        location=conf.location,
        config=as_items(conf.config),
        overrides=as_items({**conf.overrides, **layers}),
        widen_hidden=conf.widen.hidden,
        widen_expert=conf.widen.expert,
        widen_heads=conf.widen.heads,
        dtype=conf.dtype,
        seed=conf.seed,
        trust_remote_code=conf.trust_remote_code,
    )


def as_items(mapping: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Open mappings as hashable records: sorted keys, values as JSON."""
    return tuple((key, json.dumps(mapping[key], sort_keys=True)) for key in sorted(mapping))


def sd_spec(conf: SdConf) -> SdSpec:
    if conf.method is DraftMethod.draft_model and conf.draft is None:
        raise ValueError(
            "sd.method draft_model needs sd.draft; use sd=draft_model sd.draft.location=PATH"
        )
    return SdSpec(
        method=conf.method,
        draft=model_spec(conf.draft)
        if conf.draft and conf.method is DraftMethod.draft_model
        else None,
        ngram_min=conf.ngram_min,
        ngram_max=conf.ngram_max,
        synthetic_acceptance=tuple(conf.synthetic_acceptance),
    )


def workload_spec(conf: Conf) -> WorkloadSpec:
    work = conf.workload
    if work.name not in NAMES:
        raise ValueError(f"workload.name must be one of {', '.join(NAMES)}; got {work.name!r}")
    digest = ""
    if work.name == "jsonl":
        read_jsonl(work.path)
        digest = hashlib.sha256(Path(work.path).read_bytes()).hexdigest()[:16]
    return WorkloadSpec(
        name=work.name,
        path=work.path,
        digest=digest,
        prompt_tokens_min=work.prompt_tokens_min,
        prompt_tokens_max=work.prompt_tokens_max,
        output_tokens=work.output_tokens,
        seed=work.seed,
    )


def check_points(points: list[SweepPoint]) -> None:
    """What can be known before anything is loaded: vocabularies, experts, context, workload."""
    for point in points:
        if point.workload.name not in NAMES:
            raise ValueError(
                f"workload must be one of {', '.join(NAMES)}; got {point.workload.name!r}"
            )
        if point.gamma and point.sd.method is DraftMethod.none:
            raise ValueError(
                f"gamma {point.gamma} needs a draft method; choose sd=... or gamma=[0]"
            )
        if point.target.source is ModelSource.shape and point.workload.name != "random":
            raise ValueError(
                f"model {point.target.name} is a shape without a tokenizer; use workload=random"
            )
    if len(drafts := {p.sd.draft for p in points if p.sd.draft}) > 1:
        raise ValueError(f"a sweep has one draft model, got {len(drafts)}; run one sweep for each")
    for point in {(p.target, p.sd.draft, p.top_k, p.gamma): p for p in points}.values():
        _check_models(point)


def _check_models(point: SweepPoint) -> None:
    config = resolve_config(point.target)
    if config is None:  # a hub name: only the engine can ask
        return
    target = shape_of(config)
    if point.top_k is not None and not 1 <= point.top_k <= max(target.num_experts, 1):
        raise ValueError(
            f"top_k {point.top_k} exceeds num_experts {target.num_experts} of {point.target.name}; "
            f"use 1..{target.num_experts}"
        )
    _check_context(point, target)
    draft = resolve_config(point.sd.draft) if point.sd.draft else None
    if draft is not None and (size := shape_of(draft).vocab_size) != target.vocab_size:
        raise ValueError(
            f"draft and target must share a vocabulary: {point.sd.draft and point.sd.draft.name} has "
            f"{size} tokens, {point.target.name} {target.vocab_size}; choose a draft of the same family"
        )


def _check_context(point: SweepPoint, target: ModelShape) -> None:
    work = point.workload
    needed = work.prompt_tokens_max + work.output_tokens + point.gamma + 1
    if needed > target.max_context:
        raise ValueError(
            f"prompt {work.prompt_tokens_max} + output {work.output_tokens} + gamma {point.gamma} + 1 = "
            f"{needed} tokens exceed the context of {point.target.name}, {target.max_context}; "
            "lower workload.prompt_tokens_max"
        )


def make_engine(key: EngineKey) -> Engine:
    """Runs on the worker, so that heavy imports stay off the driver."""
    match key.engine:
        case EngineKind.transformers.value:
            from moesd_dist.engines.transformers.engine import TransformersEngine

            return TransformersEngine(
                target=key.target,
                draft=key.draft,
                device=Device(key.device),
                threads=key.threads,
                experts_implementation=key.experts_implementation,
            )
        case other:
            raise ValueError(f"no engine {other!r}; use one of {', '.join(EngineKind)}")


def make_executor(conf: Conf) -> Executor:
    hardware = conf.hardware
    limit = LoadLimit(
        cores=hardware.foreign_load_cores,
        refuse=hardware.foreign_load is ForeignLoadPolicy.refuse,
    )
    match conf.launcher:
        case Launcher.inline:
            return InlineExecutor(make_engine, limit)
        case Launcher.ray:
            from moesd_dist.sweep.cluster import ClusterSettings, RayExecutor

            settings = ClusterSettings(
                address=conf.cluster.address,
                cpus_per_engine=hardware.cpus_per_engine,
                gpus_per_engine=hardware.gpus_per_engine,
                whole_node=hardware.whole_node,
            )
            return RayExecutor(make_engine, limit, settings)


def make_tracker(conf: Conf, config: DictConfig) -> Tracker:
    from moesd_dist.tracking.mlflow import MlflowTracker
    from moesd_dist.tracking.provenance import collect

    return MlflowTracker(
        tracking_uri=conf.tracking.uri,
        experiment=conf.tracking.experiment,
        provenance=collect(sys.argv, Path.cwd()),
        resolved_config=OmegaConf.to_yaml(config, resolve=True),
    )
