"""A fit as JSON and back: what the analytic engine and the recommendation load."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.counts import ModelCounts
from moesd_dist.theory.steps.fit import PARTS, StepFit
from moesd_dist.theory.steps.log_fit import Link, LogFit, Prior
from moesd_dist.theory.steps.model import StepModel

FORMAT = "moesd-step-fit"
VERSION = 1


def dump_fit(fit: StepFit, **about: Any) -> str:
    """JSON text; `about` is whatever a reader should know: names, sweeps, hosts, plain values."""
    parts = {name: _part(part) for name, part in fit.parts.items()}
    content = {
        "format": FORMAT,
        "version": VERSION,
        "about": about,
        "points": fit.points,
        "target": asdict(fit.target),
        "draft": asdict(fit.draft),
        "parts": parts,
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def load_fit(text: str) -> StepFit:
    """The fit with its covariances; ValueError for any other text."""
    content = read(text)
    try:
        fit = StepFit(
            target=ModelCounts(**content["target"]),
            draft=ModelCounts(**content["draft"]),
            parts={name: _log_fit(p) for name, p in content["parts"].items() if name in PARTS},
            points=content["points"],
        )
        _ = fit.model  # every part and parameter is there
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"a saved fit is damaged: {error!r}; make it again") from error
    return fit


def load_model(text: str) -> StepModel:
    """Only what predicts times, without intervals; ValueError for text that is not a saved fit."""
    return load_fit(text).model


def about(text: str) -> dict[str, Any]:
    """What was said about the fit when it was saved."""
    return dict(read(text)["about"])


def read(text: str) -> dict[str, Any]:
    """The checked JSON; ValueError if it is none, not a fit, or of a later version."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"a saved fit is JSON, got {text[:30]!r}; give the fit.json of analysis.fit"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"a saved fit says format {FORMAT!r}; give the fit.json of analysis.fit")
    if content.get("version") != VERSION:
        raise ValueError(
            f"this version reads saved fits of version {VERSION}, got {content.get('version')};"
            " fit again"
        )
    if not isinstance(content.get("about"), dict):
        raise ValueError(
            f"a saved fit is damaged: about holds names and settings, got {content.get('about')!r};"
            " make it again"
        )
    return content


def _part(fit: LogFit) -> dict[str, Any]:
    return {
        "priors": [{**asdict(p), "link": p.link.value} for p in fit.priors],
        "values": fit.values,
        "intervals": {name: fit.interval(name) for name in fit.names},
        "offsets": fit.offsets.tolist(),
        "covariance": fit.covariance.tolist(),
        "information": fit.information.tolist(),
        "residuals": fit.residuals.tolist(),
        "scatter": fit.scatter,
        "drift": fit.drift,
        "freedom": fit.freedom,
    }


def _log_fit(part: dict[str, Any]) -> LogFit:
    count = len(part["priors"])

    def array(name: str, *shape: int) -> npt.NDArray[np.float64]:
        values = np.asarray(part[name], dtype=np.float64)
        if shape and values.shape != shape:
            raise ValueError(f"{name} has shape {values.shape}, {count} parameters need {shape}")
        return values

    numbers = {name: float(part[name]) for name in ("scatter", "drift", "freedom")}
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError(f"scatter, drift and freedom must be finite, got {numbers}")
    return LogFit(
        priors=tuple(Prior(**{**p, "link": Link(p["link"])}) for p in part["priors"]),
        offsets=array("offsets", count),
        covariance=array("covariance", count, count),
        information=array("information", count, count),
        residuals=array("residuals"),
        scatter=numbers["scatter"],
        drift=numbers["drift"],
        freedom=numbers["freedom"],
    )
