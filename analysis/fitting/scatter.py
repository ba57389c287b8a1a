"""Predicted against measured speedups of held-out points, both models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from analysis.canvas import entitle, footnote, paper, save, style_of
from analysis.fitting.results import MOESD, OURS, FitResult
from analysis.fitting.tables import percent
from analysis.fitting.verdict import control_error
from moesd_dist.theory.validation.forecast import Forecast
from moesd_dist.theory.validation.scores import noise_floor

_Floats = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]

_NAMES = {OURS: "ours (step times)", MOESD: "MoESD's ten parameters"}


def scatter_figure(result: FitResult, path: Path) -> Path:
    """The headline's held-out points; both panels share their axes."""
    figure, [panels] = paper(1)
    data, band = result.sample.data, _band(result)
    limits = np.array([0.93 * data.speedup.min(), 1.08 * data.speedup.max()])
    for axes, name in zip(panels, (OURS, MOESD), strict=True):
        noise: dict[str, Any] = {"color": "0.88", "label": f"noise, ±{percent(band)}"}
        axes.fill_between(limits, limits * (1 - band), limits * (1 + band), **noise)
        axes.plot(limits, limits, color="black", linewidth=1)
        _draw(axes, result, name)
        _scale(axes, limits)
        axes.set_title(_title(result, name), loc="left", fontsize=10)
    panels[0].set_ylabel("predicted speedup")
    panels[0].legend(fontsize=9, loc="upper left")
    entitle(figure, result.sample.measured)
    footnote(figure, _notes(result))
    return save(figure, path)


def _draw(axes: Axes, result: FitResult, name: str) -> None:
    data = result.sample.data
    gammas = sorted({int(g) for g in data.gamma})
    held = result.held_out(name, result.headline) if name in result.held else []
    for gamma in gammas:
        label: str | None = f"gamma = {gamma}"
        for split, forecast in held:
            places = split.test[data.gamma[split.test] == gamma]
            if places.size:
                _points(axes, result, forecast, places, {**style_of(gamma, gammas), "label": label})
                label = None  # one entry in the legend, not one a fold


def _points(
    axes: Axes, result: FitResult, forecast: Forecast, places: _Indices, style: dict[str, Any]
) -> None:
    predicted, across = forecast.speedup[places], result.sample.bars[:, places]
    upright = None
    if forecast.low is not None and forecast.high is not None:
        upright = [predicted - forecast.low[places], forecast.high[places] - predicted]
    look: dict[str, Any] = {"linestyle": "none", "markersize": 5, "elinewidth": 0.6, "alpha": 0.85}
    measured = result.sample.data.speedup[places]
    axes.errorbar(measured, predicted, xerr=across, yerr=upright, **look, **style)


def _scale(axes: Axes, limits: _Floats) -> None:
    axes.set_xlim(*limits)
    axes.set_ylim(*limits)
    axes.set_aspect("equal")
    axes.grid(alpha=0.25)
    axes.set_xlabel("measured speedup")


def _title(result: FitResult, name: str) -> str:
    found = result.scores.get(name, {}).get(result.headline)
    if found is None:
        return f"{_NAMES[name]}: not fitted"
    e = found.errors["speedup"]
    return f"{_NAMES[name]}: off by {percent(e.mape)}, at worst {percent(e.worst)}"


def _band(result: FitResult) -> float:
    """The larger of what repeats and A/A controls say."""
    controls = control_error(result.sample.controls)
    return max(noise_floor(result.sample.data) or 0.0, controls[0] if controls else 0.0)


def _notes(result: FitResult) -> list[str]:
    return [
        f"held out: {result.headline.value}; no point was fitted by the model that predicts it",
        "acceptance from the fitted points",
        "bars: 95 %, of one measurement (vertical) and of the paired repeats (horizontal)",
        "grey: mean error by noise alone, of repeats or of A/A controls",
    ]
