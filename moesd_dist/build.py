"""Configs become objects here, and only here: the one file that knows every implementation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from moesd_dist.config import Conf, EngineKind, ForeignLoadPolicy, Launcher
from moesd_dist.hardware import known_peaks
from moesd_dist.models.counts import counts_of
from moesd_dist.ports import Engine, Tracker
from moesd_dist.records import Device, SweepPoint
from moesd_dist.specs import model_spec, sd_spec
from moesd_dist.sweep.adaptive.rounds import AdaptivePlan, AdaptiveRule
from moesd_dist.sweep.driver import Executor, InlineExecutor, Plan, WholeGrid
from moesd_dist.sweep.pairing import EngineKey, LoadLimit
from moesd_dist.theory.counts import NO_MODEL


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
            from moesd_dist.sweep.cluster.executor import ClusterSettings, RayExecutor

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
