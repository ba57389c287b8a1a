"""Configs become objects here, and only here: the one file that knows every implementation."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from moesd_dist.config import (
    Conf,
    EngineKind,
    ForeignLoadPolicy,
    Launcher,
    LayoutConf,
    ModelConf,
    SdConf,
)
from moesd_dist.hardware import known_peaks
from moesd_dist.models.counts import counts_of
from moesd_dist.models.sources import content_digest
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
from moesd_dist.simulation import with_simulations
from moesd_dist.sweep.driver import Executor, InlineExecutor, Plan, WholeGrid
from moesd_dist.sweep.grid import expand
from moesd_dist.sweep.pairing import EngineKey, LoadLimit
from moesd_dist.sweep.rounds import AdaptivePlan, AdaptiveRule
from moesd_dist.theory.counts import NO_MODEL
from moesd_dist.validate import check_known_keys, check_points, check_reach
from moesd_dist.workloads.acceptance_files import read_profile
from moesd_dist.workloads.prompts import read_jsonl


def conf_from(config: DictConfig) -> Conf:
    """The checked configuration: every schema's own rules have been applied."""
    check_known_keys(config, Conf)
    conf = OmegaConf.to_object(config)
    assert isinstance(conf, Conf)
    return conf


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
    points = expand(base, axes_of(conf), control=conf.sweep.control)
    points = [replace(p, workload=with_file(p.workload, conf.workload.path)) for p in points]
    check_points(points)
    points = with_simulations(points, conf)
    if conf.sd.acceptance and not conf.sd.repeat_last_rate:
        check_reach(points)
    return points


def axes_of(conf: Conf) -> dict[str, list[Any]]:
    """Axes with their values, the batch size innermost so that curves fill from the left."""
    sweep = conf.sweep
    own = {"workload.name": "workload"} | {
        n: n for n in ("top_k", "temperature", "batch_size", "gamma")
    }
    if clash := own.keys() & sweep.axes.keys():
        raise ValueError(f"axis {min(clash)} has a key of its own: sweep.{own[min(clash)]}")
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
        all2all_backend=conf.all2all_backend,
        expert_placement=conf.expert_placement,
        redundant_experts=conf.redundant_experts,
        eplb=conf.eplb,
    )


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


def make_engine(key: EngineKey, timeouts: tuple[float, float] = (1800.0, 900.0)) -> Engine:
    """Runs on the worker, so that heavy imports stay off the driver.

    `timeouts`: seconds for an engine to start and to answer, of those in processes of their own.
    """
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
        case EngineKind.vllm.value:
            from moesd_dist.engines.vllm.engine import VllmEngine
            from moesd_dist.engines.vllm.host import Timeouts

            start_s, answer_s = timeouts
            return VllmEngine(
                device=Device(key.device),
                place=key.place,
                timeouts=Timeouts(start_s=start_s, answer_s=answer_s),
            )
        case EngineKind.analytic.value:
            from moesd_dist.engines.analytic import AnalyticEngine

            assert key.simulation is not None  # points_from saw to it
            return AnalyticEngine(
                target=key.target,
                draft=key.draft,
                simulation=key.simulation,
                hardware=key.hardware,
                tp_size=key.layout.tp_size,
            )
        case other:
            raise ValueError(f"no engine {other!r}; use one of {', '.join(EngineKind)}")


def make_executor(conf: Conf) -> Executor:
    hardware = conf.hardware
    limit = LoadLimit(
        cores=hardware.foreign_load_cores,
        refuse=hardware.foreign_load is ForeignLoadPolicy.refuse,
    )
    make = partial(
        make_engine, timeouts=(conf.engine.start_timeout_s, conf.engine.answer_timeout_s)
    )
    match conf.launcher:
        case Launcher.inline:
            return InlineExecutor(make, limit)
        case Launcher.ray:
            from moesd_dist.sweep.cluster import ClusterSettings, RayExecutor

            simulated = conf.engine.kind is EngineKind.analytic  # occupies one core of any node
            settings = ClusterSettings(
                address=conf.cluster.address,
                cpus_per_engine=1 if simulated else hardware.cpus_per_engine,
                gpus_per_engine=0 if simulated else hardware.gpus_per_engine,
                threads=1 if simulated else hardware.threads,
                whole_node=hardware.whole_node and not simulated,
            )
            return RayExecutor(make, limit, settings)


def make_plan(conf: Conf, points: Sequence[SweepPoint]) -> Plan:
    """Which of the points are measured, and when; ValueError for a pool that nothing can choose from."""
    chosen = conf.sweep.adaptive
    if chosen is None:
        return WholeGrid(points)
    rule = AdaptiveRule(
        objective=chosen.objective,
        start=chosen.start,
        per_round=chosen.per_round,
        budget=chosen.budget,
        target_interval=chosen.target_interval,
    )
    draft = sd_spec(conf.sd).draft
    return AdaptivePlan(
        points,
        rule,
        target=counts_of(model_spec(conf.model)),
        draft=counts_of(draft) if draft else NO_MODEL,
        peaks=known_peaks(conf.hardware, tp_size=conf.layout.tp_size),
    )


def make_tracker(conf: Conf, config: DictConfig) -> Tracker:
    from moesd_dist.tracking.mlflow import MlflowTracker
    from moesd_dist.tracking.provenance import collect

    return MlflowTracker(
        tracking_uri=conf.tracking.uri,
        experiment=conf.tracking.experiment,
        provenance=collect(sys.argv, own_checkout()),
        resolved_config=OmegaConf.to_yaml(config, resolve=True),
    )


def own_checkout() -> Path | None:
    """The folder of this code if git tracks it: not the repository a user happens to stand in."""
    folder = Path(__file__).parent
    question = ["git", "-C", str(folder), "ls-files", "--error-unmatch", Path(__file__).name]
    try:
        known = subprocess.run(question, capture_output=True, check=False)
    except FileNotFoundError:  # no git here
        return None
    return folder if known.returncode == 0 else None
