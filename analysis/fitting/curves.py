"""Speedup over the batch size, gamma by gamma: measured, our band, MoESD's curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.canvas import counts_axis, entitle, footnote, save, style_of
from analysis.fitting.results import FitResult
from moesd_dist.theory.steps.settings import Expected, expected_at
from moesd_dist.theory.validation.forecast import forecast_of

_Indices = npt.NDArray[np.intp]

_GREY = "0.35"


def curves_figure(result: FitResult, path: Path) -> Path:
    """A row for each setting and number of ranks, a column for each gamma."""
    data, settings = result.sample.data, result.sample.settings
    rows = np.unique(np.stack([settings, data.ranks], axis=1), axis=0)
    gammas = np.unique(data.gamma)
    figure, grid = _paper(len(rows), gammas.size)
    expected = expected_at(data.take(result.fitted), settings[result.fitted], data, settings)
    for line, (setting, ranks) in zip(grid, rows, strict=True):
        for axes, gamma in zip(line, gammas, strict=True):
            here = (settings == setting) & (data.ranks == ranks) & (data.gamma == gamma)
            places = np.flatnonzero(here)
            _panel(axes, result, expected, places[np.argsort(data.batch_size[places])])
            title = _title(result, int(setting), gamma)
            axes.set_title(title + result.sample.on(ranks), loc="left", fontsize=10)
        line[0].set_ylabel("speedup")
    for axes in grid[-1]:
        axes.set_xlabel("batch size B")
    grid[0][0].legend(fontsize=8)
    entitle(figure, result.sample.measured)
    footnote(figure, _notes(result))
    return save(figure, path)


def _paper(rows: int, columns: int) -> tuple[Figure, Any]:
    size = (3.6 * max(3, columns), 1.8 + 3.2 * rows)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=True, sharey="row")


def _panel(axes: Axes, result: FitResult, expected: Expected, places: _Indices) -> None:
    data = result.sample.data
    axes.axhline(1.0, color="black", linewidth=1)
    counts_axis(axes, [int(b) for b in np.unique(data.batch_size)])
    if not places.size:
        return
    points, here = data.take(places), _taken(expected, places)
    gamma, gammas = int(points.gamma[0]), sorted({int(g) for g in data.gamma})
    style, fitted = style_of(gamma, gammas), np.isin(places, result.fitted)
    forecast = forecast_of(result.fit, points, here, result.models.shared)
    batch = points.batch_size
    if forecast.low is not None and forecast.high is not None:
        band: dict[str, Any] = {
            "color": style["color"],
            "alpha": 0.18,
            "label": "ours, 95 % of one",
        }
        axes.fill_between(batch, forecast.low, forecast.high, **band)
    axes.plot(batch, forecast.speedup, color=style["color"], linewidth=1.5, label="ours")
    if result.moesd is not None and result.models.moesd is not None:
        curve = result.models.moesd.speedup(result.moesd.parameters, points, here.sigma)
        axes.plot(batch, curve, color=_GREY, linestyle="--", linewidth=1.2, label="MoESD")
    kinds = ((fitted, style["color"], "measured"), (~fitted, "white", "held out"))
    for which, fill, label in kinds:
        _measured(axes, result, places[which], {**style, "markerfacecolor": fill, "label": label})


def _measured(axes: Axes, result: FitResult, places: _Indices, style: dict[str, Any]) -> None:
    data = result.sample.data
    look = {"linestyle": "none", "markersize": 5, "capsize": 2, "elinewidth": 1, **style}
    if places.size:
        bars = result.sample.bars[:, places]
        axes.errorbar(data.batch_size[places], data.speedup[places], yerr=bars, **look)


def _taken(expected: Expected, places: _Indices) -> Expected:
    return Expected(
        sigma=expected.sigma[places],
        sigma_variance=expected.sigma_variance[places],
        counting_variance=expected.counting_variance[places],
        context_tokens=expected.context_tokens[places],
    )


def _title(result: FitResult, setting: int, gamma: float) -> str:
    """The setting by what differs between the settings of the picture."""
    names = result.sample.setting_names
    shown = [dict(names[i]) for i in np.unique(result.sample.settings)]
    differ = [n for n in shown[0] if len({s[n] for s in shown}) > 1]
    own = dict(names[setting])
    return ", ".join([f"gamma {gamma:g}", *(f"{n} {own[n]}" for n in differ)])


def _notes(result: FitResult) -> list[str]:
    fitted, all_of = len(result.fitted), len(result.sample.data)
    kind = result.headline
    off = result.scores["ours"][kind].errors["speedup"].mape
    return [
        f"both models fitted to {fitted} of {all_of} points, so filled points are in-sample: held"
        f" out ({kind.value}), ours is off by {100 * off:.1f} %",
        "acceptance pooled over the fitted points of a setting",
        "bars: 95 % over paired repeats",
    ]
