"""Configs become points here: what is measured, checked before anything is spent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from moesd_dist.axes import axes_of, exclusions_of, ranks_axis
from moesd_dist.config import Conf, LayoutConf, ModelConf, SdConf
from moesd_dist.models.sources import content_digest
from moesd_dist.records import (
    DraftMethod,
    LayoutSpec,
    ModelSource,
    ModelSpec,
    Protocol,
    SdSpec,
    SweepPoint,
    WorkloadSpec,
)
from moesd_dist.simulation import with_simulations
from moesd_dist.sweep.grid import Axis, Grid, make_grid
from moesd_dist.sweep.validation.shares import with_single_ranks
from moesd_dist.validate import check_known_keys, check_points, check_reach
from moesd_dist.workloads.acceptance_files import read_profile
from moesd_dist.workloads.prompts import read_jsonl


def conf_from(config: DictConfig) -> Conf:
    """The checked configuration: every schema's own rules have been applied."""
    check_known_keys(config, Conf)
    conf = OmegaConf.to_object(config)
    assert isinstance(conf, Conf)
    return conf


def grid_from(conf: Conf) -> Grid:
    """Every combination of the axes, nothing looked up or checked yet."""
    base = base_point(conf)
    axes, exclude = _axes(conf, base), exclusions_of(conf.sweep, base)
    grid = make_grid(base, axes, exclude=exclude, control=conf.sweep.control)
    return replace(grid, points=with_single_ranks(grid.points)) if conf.validation else grid


def _axes(conf: Conf, base: SweepPoint) -> list[Axis]:
    """Layouts outermost: each is an engine of its own."""
    axes = axes_of(conf.sweep)
    if not conf.sweep.ranks:
        return axes
    for name in (name for axis in axes for name in axis.names if name.startswith("layout")):
        raise ValueError(f"sweep.ranks makes the layouts, and {name} is an axis too; keep one")
    return [ranks_axis(conf.sweep.ranks, base.layout), *axes]


def checked(points: Sequence[SweepPoint], conf: Conf) -> list[SweepPoint]:
    """With the content of files and the figures they are predicted from.

    ValueError for anything that could never be measured.
    """
    works = {p.workload: with_file(p.workload, conf.workload.path) for p in points}
    points = [replace(p, workload=works[p.workload]) for p in points]
    check_points(points)
    points = with_simulations(points, conf)
    if conf.sd.acceptance and not conf.sd.repeat_last_rate:
        check_reach(points)
    return points


def base_point(conf: Conf) -> SweepPoint:
    """What all points have in common before the axes."""
    return SweepPoint(
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
        layout=layout_spec(conf.layout),
        engine_args=as_items(conf.engine.args),
        cpu_fixes=conf.engine.cpu_fixes,
        protocol=Protocol(
            repeats=conf.sweep.repeats,
            warmup_rounds=conf.sweep.warmup_rounds,
            window_tokens=conf.sweep.window_tokens,
            end_to_end_repeats=conf.sweep.end_to_end_repeats,
        ),
    )


def model_spec(conf: ModelConf) -> ModelSpec:
    if conf.source is ModelSource.checkpoint and not conf.location:
        raise ValueError(
            "a checkpoint needs its location: give model.location (or sd.draft.location) a folder or a hub name"
        )
    layers = {"num_layers": conf.num_layers} if conf.num_layers is not None else {}
    spec = ModelSpec(
        name=conf.name or Path(conf.location).name,
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
    return replace(spec, digest=content_digest(spec))


def as_items(mapping: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Open mappings as hashable records: sorted keys, values as JSON."""
    return tuple((key, json.dumps(mapping[key], sort_keys=True)) for key in sorted(mapping))


def sd_spec(conf: SdConf) -> SdSpec:
    if conf.method.needs_draft and conf.draft is None:
        raise ValueError(
            f"sd.method {conf.method} needs sd.draft; use sd={conf.method} sd.draft.location=PATH"
        )
    if (conf.alpha is not None) is not (conf.method is DraftMethod.oracle):
        raise ValueError("sd.alpha and sd=oracle go together; use sd=oracle sd.alpha=0.8")
    if conf.draft and conf.draft.top_k is not None:
        raise ValueError("sd.draft.top_k is not supported; use +sd.draft.overrides.top_k=...")
    return SdSpec(
        method=conf.method,
        draft=model_spec(conf.draft) if conf.draft and conf.method.needs_draft else None,
        ngram_min=conf.ngram_min,
        ngram_max=conf.ngram_max,
        synthetic_acceptance=replayed_rates(conf.acceptance) or tuple(conf.synthetic_acceptance),
        alpha=conf.alpha,
        schedule=tuple((first, last, tokens) for first, last, tokens in conf.schedule),
        options=as_items(conf.options),
    )


def layout_spec(conf: LayoutConf) -> LayoutSpec:
    return LayoutSpec(
        tp_size=conf.tp_size,
        dp_size=conf.dp_size,
        ep_size=conf.ranks_sharing_experts,
        nodes=conf.nodes,
        all2all_backend=conf.all2all_backend,
        expert_placement=conf.expert_placement,
        redundant_experts=conf.redundant_experts,
        eplb=conf.eplb,
        loads_digest=_digest_of(conf.expert_loads) if conf.expert_loads else "",
        loads_path=str(Path(conf.expert_loads).expanduser().resolve()) if conf.expert_loads else "",
    )


def _digest_of(path: str) -> str:
    """Of measured expert loads; they are read again where the experts are placed."""
    try:
        return hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise ValueError(
            f"layout.expert_loads {path!r} cannot be read; python -m analysis.expert_loads writes one"
        ) from error


def replayed_rates(path: str) -> tuple[float, ...]:
    """Conditional rates of the positions that a file knows; none without a file."""
    return read_profile(path).profile.conditional if path else ()


def workload_spec(conf: Conf) -> WorkloadSpec:
    work = conf.workload
    return WorkloadSpec(
        name=work.name,
        prompt_tokens_min=work.prompt_tokens_min,
        prompt_tokens_max=work.prompt_tokens_max,
        output_tokens=work.output_tokens,
        seed=work.seed,
    )


def with_file(work: WorkloadSpec, path: str) -> WorkloadSpec:
    """A workload of a file carries its path and the digest of its content; others carry none."""
    if work.name != "jsonl":
        return work
    read_jsonl(path)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    return replace(work, path=path, digest=digest)
