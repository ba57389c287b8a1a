"""A fit as one MLflow run: parameters with intervals, errors by what was held out, files."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.fitting.results import MOESD, FitResult
from analysis.fitting.save import about, distinct
from analysis.fitting.settings import FitConf
from analysis.heading import labels
from moesd_dist import build
from moesd_dist.theory.moesd.scaling import NAMES
from moesd_dist.theory.validation.scores import Scores, noise_floor
from moesd_dist.tracking import location
from moesd_dist.tracking.labels import acceptance, filled, provenance_tags
from moesd_dist.tracking.mlflow_runs import connect, ensure_experiment, fill
from moesd_dist.tracking.provenance import collect


def log_fit(result: FitResult, conf: FitConf, files: Sequence[Path]) -> str:
    """One run of kind `fit`; its id. It is no child of a sweep, which owns its children."""
    uri = location.check_writable(conf.uri)
    client = connect(uri)
    experiment = ensure_experiment(client, conf.experiment, location.artifact_location(uri))
    sweeps, points = (s.name for s in result.sample.sweeps), f"{len(result.fitted)} points"
    name = " ".join(["fit", *sweeps, *filter(None, [result.sample.name]), points])
    run = client.create_run(experiment, tags=_tags(result), run_name=name)
    run_id = str(run.info.run_id)
    fill(client, run_id, _params(result, conf), _metrics(result))
    for file in files:
        client.log_artifact(run_id, str(file))
    client.set_terminated(run_id, "FINISHED")
    return run_id


def _tags(result: FitResult) -> dict[str, str]:
    measured, sweeps = result.sample.measured, result.sample.sweeps
    return filled(
        {
            "moesd.kind": "fit",
            "moesd.source": "simulated" if measured[0].point.simulated else "measured",
            "moesd.acceptance": ", ".join(distinct(acceptance(m.point) for m in measured)),
            "moesd.labels": ", ".join(labels(measured)),
            "moesd.sweep_ids": ", ".join(s.sweep_id for s in sweeps),
            "moesd.sweep_run_ids": ", ".join(s.run_id for s in sweeps),
            "moesd.headline": result.headline.value,
            "moesd.no_moesd": result.no_moesd,
        }
    ) | provenance_tags(collect(sys.argv, build.own_checkout()))


def _params(result: FitResult, conf: FitConf) -> dict[str, str]:
    known = about(result)
    names = ("target", "draft", "engine", "hardware", "device", "threads", "batch_sizes", "gammas")
    values = {name: known[name] for name in (*names, "top_k", "ranks", "workloads", "hosts")}
    values |= {"sweeps": [s.name for s in result.sample.sweeps], "group": result.sample.name}
    values |= {"points": len(result.sample.data), "fitted_points": len(result.fitted)}
    values |= {n: getattr(conf, n) for n in ("verified", "line_11", "bootstrap", "seed")}
    values |= {"calibration": known["calibration"]}
    return {name: _text(value) for name, value in values.items()}


def _metrics(result: FitResult) -> dict[str, float]:
    """Such as `ours.gamma.speedup.mape`, `target.bytes_per_s.low` and `moesd.bias`."""
    found = _parameters(result) | _moesd(result)
    for model, kinds in result.scores.items():
        for kind, scores in kinds.items():
            found |= _errors(f"{model}.{kind.slug}", scores)
    if (floor := noise_floor(result.sample.data)) is not None:
        found["noise.speedup.mape"] = floor
    return found


def _parameters(result: FitResult) -> dict[str, float]:
    found: dict[str, float] = {}
    for part, fit in result.fit.parts.items():
        for name, value in fit.values.items():
            low, high = fit.interval(name)
            key = f"{part}.{name}"
            found |= {key: value, f"{key}.low": low, f"{key}.high": high}
            found[f"{key}.learned"] = fit.learned(name)
            if ends := result.intervals.get(part, {}).get(name):
                found |= _ends(f"{key}.bootstrap", ends)
    return found


def _moesd(result: FitResult) -> dict[str, float]:
    if result.moesd is None:
        return {}
    found: dict[str, float] = {}
    for name in NAMES:
        found[f"{MOESD}.{name}"] = getattr(result.moesd.parameters, name)
        if ends := result.moesd_intervals.get(name):
            found |= _ends(f"{MOESD}.{name}.bootstrap", ends)
    return found


def _errors(prefix: str, scores: Scores) -> dict[str, float]:
    found: dict[str, float] = {}
    for quantity, e in scores.errors.items():
        key = f"{prefix}.{quantity}"
        found |= {f"{key}.mape": e.mape, f"{key}.worst": e.worst, f"{key}.bias": e.bias}
    found |= {f"{prefix}.regret.mean": scores.regret.mean, f"{prefix}.regret.worst": scores.regret.worst}  # fmt: skip
    if scores.coverage is not None:
        found[f"{prefix}.coverage_of_one"] = scores.coverage
    return found


def _ends(key: str, ends: tuple[float, float]) -> Mapping[str, float]:
    return {f"{key}_low": ends[0], f"{key}_high": ends[1]}


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
