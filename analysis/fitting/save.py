"""A fit as files: the one that the analytic engine and the recommendation load, and its errors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.fitting.results import OURS, FitResult
from analysis.fitting.tables import error_rows
from analysis.heading import labels
from moesd_dist.records import LayoutSpec
from moesd_dist.theory.steps.saved import dump_fit
from moesd_dist.theory.steps.settings import acceptance_profile
from moesd_dist.theory.validation.scores import Scores
from moesd_dist.workloads.acceptance_points import profile_of

FIT = "fit.json"


def save_fit(result: FitResult, folder: Path) -> list[Path]:
    """fit.json and errors.csv."""
    fit, table = folder / FIT, folder / "errors.csv"
    fit.write_text(dump_fit(result.fit, **about(result)), encoding="utf-8")
    pd.DataFrame(error_rows(result)).to_csv(table, index=False, float_format="%.6g")
    return [fit, table]


def about(result: FitResult) -> dict[str, Any]:
    """What a reader of the saved fit should know of its data, in plain values."""
    sample, data = result.sample, result.sample.data
    point, draft = sample.measured[0].point, sample.measured[0].point.sd.draft
    return {
        "sweeps": [{"name": s.name, "sweep_id": s.sweep_id} for s in sample.sweeps],
        "target": point.target.name,
        "draft": draft.name if draft else point.sd.method.value,
        "engine": point.engine,
        "hardware": point.hardware,
        "device": point.device.value,
        "threads": point.threads,
        "hosts": distinct(m.host for m in sample.measured),
        "device_names": distinct(m.device_name for m in sample.measured),
        "layout": _layout(result),
        "ranks": sample.ranks,
        "calibration": result.models.calibrated,
        "workloads": distinct(m.point.workload.name for m in sample.measured),
        "batch_sizes": sorted({m.point.batch_size for m in sample.measured}),
        "gammas": sorted({m.point.gamma for m in sample.measured}),
        "top_k": sorted({m.top_k for m in sample.measured}),
        "peaks": asdict(result.models.peaks) if result.models.peaks else None,
        "context_tokens": float(np.average(data.context_tokens, weights=data.sequence_rounds)),
        "labels": labels(sample.measured),
        "settings": _settings(result),
        "held_out": {kind.slug: _plain(found) for kind, found in result.scores[OURS].items()},
        "bootstrap": {part: dict(ends) for part, ends in result.intervals.items()},
    }


def _layout(result: FitResult) -> dict[str, int]:
    """That the rates are of: of one rank where several were fitted together."""
    layout = LayoutSpec() if result.sample.ranks != [1] else result.sample.measured[0].point.layout
    return {name: getattr(layout, name) for name in ("tp_size", "dp_size", "ep_size")}


def _settings(result: FitResult) -> list[dict[str, Any]]:
    """Acceptance and context of each, from the fitted points."""
    sample, found = result.sample, list[dict[str, Any]]()
    for label in np.unique(sample.settings[result.fitted]):
        places = result.fitted[sample.settings[result.fitted] == label]
        points = sample.data.take(places)
        profile = acceptance_profile(points)
        found.append(
            dict(sample.setting_names[label])
            | {"conditional": list(profile.conditional), "tried": list(profile.tried)}
            | {"dispersion": profile_of([sample.measured[place] for place in places]).dispersion}
            | {"mean_context": float(points.context_tokens.mean()), "points": len(points)}
        )
    return found


def _plain(found: Scores) -> dict[str, Any]:
    errors = {name: {"mape": e.mape, "worst": e.worst} for name, e in found.errors.items()}
    return {**errors, "regret_mean": found.regret.mean, "coverage_of_one": found.coverage}


def distinct(values: Iterable[str]) -> list[str]:
    """In their order, without empty ones."""
    return [value for value in dict.fromkeys(values) if value]
