"""Configs become objects here, and only here: the one file that knows every implementation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from moesd_dist.config import Conf, EngineKind, ForeignLoadPolicy, Launcher
from moesd_dist.engines import neighbours
from moesd_dist.engines.pinning import pin
from moesd_dist.hardware import known_peaks
from moesd_dist.models.counts import counts_of
from moesd_dist.planning.expected import conf_of, needs_of
from moesd_dist.planning.staging import journals, staged
from moesd_dist.ports import Engine, Tracker
from moesd_dist.records import Device, SweepPoint
from moesd_dist.specs import model_spec, sd_spec
from moesd_dist.sweep.adaptive.rounds import AdaptivePlan, AdaptiveRule
from moesd_dist.sweep.driver import Executor, InlineExecutor, Plan, WholeGrid
from moesd_dist.sweep.grouping import EngineKey
from moesd_dist.sweep.journal import Journal
from moesd_dist.sweep.ledger import Ledger
from moesd_dist.sweep.pairing import LoadLimit
from moesd_dist.sweep.quiet import nobody
from moesd_dist.sweep.retries import RetryRule
from moesd_dist.sweep.schedule.costs import Costs
from moesd_dist.sweep.stopping import Stop
from moesd_dist.theory.counts import NO_MODEL

if TYPE_CHECKING:
    from moesd_dist.sweep.cluster.crew import ClusterSettings
    from moesd_dist.tracking.extension import Opening


def make_engine(
    key: EngineKey, timeouts: tuple[float, float, float] = (1800.0, 900.0, 60.0)
) -> Engine:
    """Runs on the worker, so that heavy imports stay off the driver.

    `timeouts`: seconds for an engine to start, to answer, and of a collective between its ranks.
    """
    start_s, answer_s, collective_s = timeouts
    match key.engine:
        case EngineKind.transformers.value:
            from moesd_dist.engines.transformers.engine import TransformersEngine

            return TransformersEngine(
                target=key.target,
                draft=key.draft,
                device=Device(key.device),
                threads=key.threads,
                experts_implementation=key.experts_implementation,
                layout=key.layout,
                place=key.place,
                timeouts=(start_s, collective_s),
            )
        case EngineKind.vllm.value:
            from moesd_dist.engines.vllm.engine import VllmEngine
            from moesd_dist.engines.vllm.host import Timeouts

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
                layout=key.layout,
            )
        case other:
            raise ValueError(f"no engine {other!r}; use one of {', '.join(EngineKind)}")


def make_executor(
    confs: Sequence[Conf], *, costs: Costs | None = None, stop: Stop | None = None
) -> Executor:
    """For a sweep of several configurations, each engine under the terms of its own."""
    first, make = confs[0], partial(_make_by_conf, timeouts_by_kind(confs), pins_by_hardware(confs))
    match first.launcher:
        case Launcher.inline:
            return InlineExecutor(make, lambda key: limit_of(_conf(confs, key)), stop)
        case Launcher.ray:
            from moesd_dist.sweep.cluster.executor import RayExecutor
            from moesd_dist.sweep.cluster.live import Terms

            def terms(key: EngineKey) -> Terms:
                return Terms(needs=needs_of(confs, key), limit=limit_of(_conf(confs, key)))

            return RayExecutor(make, terms, cluster_settings(first), costs=costs, stop=stop)


def limit_of(conf: Conf) -> LoadLimit:
    hardware, simulated = conf.hardware, conf.engine.kind is EngineKind.analytic
    return LoadLimit(
        cores=hardware.foreign_load_cores,
        refuse=hardware.foreign_load is ForeignLoadPolicy.refuse,
        wait_s=(
            hardware.foreign_load_wait_s
            if hardware.foreign_load is ForeignLoadPolicy.wait and not simulated
            else 0.0
        ),
        look=nobody if simulated else neighbours.look,
    )


def _conf(confs: Sequence[Conf], key: EngineKey) -> Conf:
    return conf_of(confs, engine=key.engine, hardware=key.hardware)


def timeouts_by_kind(confs: Sequence[Conf]) -> dict[str, tuple[float, float, float]]:
    names = ("start_timeout_s", "answer_timeout_s", "collective_timeout_s")
    return {c.engine.kind.value: tuple(getattr(c.engine, n) for n in names) for c in confs}


def pins_by_hardware(confs: Sequence[Conf]) -> dict[str, str]:
    return {c.hardware.name: c.hardware.pin for c in confs if c.hardware.pin}


def _make_by_conf(
    timeouts: Mapping[str, tuple[float, float, float]], pins: Mapping[str, str], key: EngineKey
) -> Engine:
    if (cores := pins.get(key.hardware)) and key.simulation is None:
        if key.layout.dp_size > key.layout.nodes:
            raise ValueError(
                "hardware.pin gives the data-parallel ranks of a node the same cores; got "
                f"layout.dp_size {key.layout.dp_size} on {key.layout.nodes} nodes; leave it away"
            )
        pin(cores, threads=key.threads)
    return make_engine(key, timeouts[key.engine])


def cluster_settings(conf: Conf) -> ClusterSettings:
    from moesd_dist.sweep.cluster.crew import ClusterSettings
    from moesd_dist.sweep.cluster.wheels import runtime_env

    cluster = conf.cluster
    rule = RetryRule(
        attempts=cluster.attempts,
        on_error=cluster.attempts_on_error,
        backoff_s=cluster.backoff_s,
    )
    return ClusterSettings(
        address=cluster.address,
        nodes=cluster.nodes,
        cpus_per_node=cluster.cpus_per_node,
        runtime_env=runtime_env(cluster.wheels, cluster.runtime_env),
        rule=rule,
        deadline_factor=cluster.deadline_factor,
        deadline_min_s=cluster.deadline_min_s,
        place_s=cluster.place_s,
        # Rounds of a few points would be checked more often than measured.
        sentinel_every=0 if conf.sweep.adaptive else cluster.sentinel_every,
        drift_tolerance=cluster.drift_tolerance,
    )


def make_plan(conf: Conf, points: Sequence[SweepPoint]) -> Plan:
    """Which of the points are measured, and when; ValueError for a pool that nothing can choose from."""
    chosen = conf.sweep.adaptive
    if conf.validation is not None:
        return staged(conf, points)
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


def opening(conf: Conf, own_id: str, points: Sequence[SweepPoint]) -> Opening:
    """Under which id the sweep goes on; ValueError for a sweep.extends that cannot be."""
    from moesd_dist.tracking.extension import opening

    where, own = (conf.tracking.uri, conf.tracking.experiment), (conf.sweep.name, own_id)
    return opening(*where, own, points, conf.sweep.extends)


def make_ledger(conf: Conf, tracker: Tracker) -> Ledger:
    """Behind a journal of its own for every store, experiment and sweep."""
    from moesd_dist.tracking.mlflow import MlflowTracker

    tracking = conf.tracking
    folder = journals(conf)
    driver = tracker.driver if isinstance(tracker, MlflowTracker) else None
    return Ledger(tracker, Journal(folder, driver), patience_s=tracking.patience_s)


def own_checkout() -> Path | None:
    """The folder of this code if git tracks it: not the repository a user happens to stand in."""
    folder = Path(__file__).parent
    question = ["git", "-C", str(folder), "ls-files", "--error-unmatch", Path(__file__).name]
    try:
        known = subprocess.run(question, capture_output=True, check=False)
    except FileNotFoundError:  # no git here
        return None
    return folder if known.returncode == 0 else None
