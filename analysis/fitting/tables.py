"""Held-out errors as rows: of a table to read and of a file to compute with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from analysis.fitting.residuals import regime_residuals
from analysis.fitting.results import MOESD, OURS, FitResult
from analysis.heading import labels, source
from moesd_dist.theory.moesd.scaling import NAMES
from moesd_dist.theory.validation.scores import Scores, score
from moesd_dist.theory.validation.splits import Kind

_STEPS = {"decode": "target_decode_s", "verify": "target_verify_s", "draft": "draft_step_s"}


def error_rows(result: FitResult) -> Iterator[dict[str, Any]]:
    """One row a model, kind of split and quantity; then the same for every single split."""
    kind = source(labels(result.sample.measured))
    for row in _score_rows(result):
        yield row | {"source": kind}


def _score_rows(result: FitResult) -> Iterator[dict[str, Any]]:
    for model, kinds in result.scores.items():
        for kind, found in kinds.items():
            yield from _rows(model, kind, "all", found)
        for held in result.held[model]:
            if held.forecast:
                found = score(result.sample.data, [held])
                yield from _rows(model, held.split.kind, held.split.name, found)


def _rows(model: str, kind: Kind, split: str, found: Scores) -> Iterator[dict[str, Any]]:
    for quantity, e in found.errors.items():
        row: dict[str, Any] = {
            "model": model,
            "held_out": kind.slug,
            "split": split,
            "quantity": quantity,
        }
        row |= {"mape": e.mape, "worst": e.worst, "bias": e.bias, "values": e.values}
        if quantity == "speedup":
            row |= {"coverage_of_one": found.coverage, "regret_mean": found.regret.mean}
            row |= {"regret_worst": found.regret.worst, "cells": found.regret.cells}
        yield row


def speedup_table(result: FitResult) -> Table:
    """Ours beside MoESD's on the same held-out points."""
    table = _table("held-out speedups: mean (worst) error", "held out", "points")
    models = [name for name in (OURS, MOESD) if name in result.scores]
    for name in models:
        table.add_column(f"{name},\nblind", justify="right")
        table.add_column(f"{name},\nsigma given", justify="right")
    for name in models:
        table.add_column(f"regret\n{name}", justify="right")
    table.add_column("in 95%\nof one", justify="right")
    for kind, ours in result.scores[OURS].items():
        cells = [kind.value, str(ours.errors["speedup"].values)]
        found = [result.scores[name].get(kind) for name in models]
        cells += [_error(f, q) for f in found for q in ("speedup", "speedup_given_sigma")]
        cells += [_pair(f.regret.mean, f.regret.worst) if f else "too few" for f in found]
        table.add_row(*cells, f"{ours.coverage:.0%}" if ours.coverage is not None else "")
    return table


def step_table(result: FitResult) -> Table:
    """Seconds, of our model; MoESD's speedups fix none."""
    title = "held-out step times, ours: mean (worst) error"
    table = _table(title, "held out", "unseen\nbaselines")
    for name in _STEPS:
        table.add_column(name, justify="right")
    for kind, found in result.scores[OURS].items():
        cells = [_error(found, quantity) for quantity in _STEPS.values()]
        unseen = found.errors.get("target_decode_s")
        table.add_row(kind.value, str(unseen.values if unseen else 0), *cells)
    return table


def regime_table(result: FitResult) -> Table:
    """ln(predicted / measured) of target forwards that were held out."""
    title = f"residuals of target forwards by regime, held out: {result.headline.value}"
    table = _table(title, "regime", "forwards", "mean", "rms")
    for regime, found in regime_residuals(result).items():
        cells = (f"{found.forwards}", f"{found.mean:+.1%}", f"{found.rms:.1%}")
        table.add_row(regime.value, *cells)
    return table


def parameter_table(result: FitResult) -> Table:
    """Ours; low and high by the Jacobian, and by the bootstrap where it was asked for."""
    table = _table("parameters, ours, with 95 % intervals", "part", "parameter", "value")
    names = ["Jacobian", *(["bootstrap"] if result.intervals else []), "learned"]
    for name in names:
        table.add_column(name, justify="right")
    for part, fit in result.fit.parts.items():
        for name, value in fit.values.items():
            cells = [part, name, f"{value:.3g}", _interval(fit.interval(name))]
            cells += [_interval(result.intervals[part][name])] if result.intervals else []
            table.add_row(*cells, f"{fit.learned(name):.0%}")
    return table


def moesd_table(result: FitResult) -> Table | None:
    """Its ten parameters; None where it was not fitted."""
    if result.moesd is None:
        return None
    table = _table("parameters, MoESD's model, with 95 % bootstrap intervals", "parameter", "value")
    table.add_column("bootstrap", justify="right")
    table.add_column("", justify="left")
    known = result.moesd.identifiable
    for name in NAMES:
        notes = ["at its limit"] if name in known.at_limit else []
        notes += ["not told apart"] if name in known.inseparable else []
        interval = result.moesd_intervals.get(name)
        value = getattr(result.moesd.parameters, name)
        cell = _interval(interval) if interval else ""
        table.add_row(name, f"{value:.3g}", cell, ", ".join(notes))
    return table


def percent(share: float) -> str:
    return f"{100.0 * share:.1f}%"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left")
    return table


def _error(found: Scores | None, quantity: str) -> str:
    """Too few to fit without what is held out; or nothing of this quantity was."""
    if found is None:
        return "too few"
    if quantity not in found.errors:
        return "none"
    return _pair(found.errors[quantity].mape, found.errors[quantity].worst)


def _pair(mean: float, worst: float) -> str:
    return f"{percent(mean)} ({percent(worst)})"


def _interval(ends: tuple[float, float]) -> str:
    low, high = ends
    return f"{low:.2g} .. {high:.2g}" if np.isfinite(high) else f"from {low:.2g}"
