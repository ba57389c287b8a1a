"""Seconds of target forwards over the tokens at a gate: the fitted law, and what held-out points say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from analysis.canvas import counts_axis, entitle, footnote, paper, save, style_of
from analysis.fitting.residuals import forward_residuals
from analysis.fitting.results import FitResult
from moesd_dist.theory.steps.data import StepData
from moesd_dist.theory.steps.model import Grid
from moesd_dist.theory.validation.regimes import Regime

_Floats = npt.NDArray[np.float64]

_COLOURS: Mapping[Regime, str] = {
    Regime.FEW_EXPERTS: "#0072B2",
    Regime.READING: "#E69F00",
    Regime.MULTIPLYING: "#D55E00",
}
_DENSE = 60  # places of a curve


def steps_figure(result: FitResult, path: Path) -> Path:
    """A row for each top_k and number of ranks: seconds with the law, and held-out residuals."""
    data = result.sample.data
    values = np.unique(np.stack([data.top_k, data.ranks], axis=1), axis=0)
    figure, rows = paper(len(values))
    for (left, right), (top_k, ranks) in zip(rows, values, strict=True):
        _times(left, result, float(top_k), int(ranks))
        _residuals(right, result, float(top_k), int(ranks))
        title = f"top_k {top_k:g}" if top_k else "dense"
        left.set_title(title + result.sample.on(ranks), loc="left", fontsize=10)
    tokens = [int(t) for t in _tokens(result.sample.data)]
    for axes in (axes for row in rows for axes in row):
        counts_axis(axes, tokens)
    for axes in rows[-1]:
        axes.set_xlabel("tokens at a gate in one forward: B, or B (gamma + 1)")
    rows[0][0].legend(fontsize=8, ncols=2)
    rows[0][1].legend(fontsize=9)
    entitle(figure, result.sample.measured)
    footnote(figure, _notes(result))
    return save(figure, path)


def _times(axes: Axes, result: FitResult, top_k: float, ranks: int) -> None:
    data = result.sample.data
    own = data.take(np.flatnonzero((data.top_k == top_k) & (data.ranks == ranks)))
    gammas = sorted({int(g) for g in data.gamma})
    first = own.take(own.baselines)
    _law(axes, result, first, gamma=0, colour="black")
    axes.plot(first.batch_size, 1e3 * first.target_decode_s, "x", color="black", label="decode")
    for gamma in gammas:
        line = own.take(np.flatnonzero(own.gamma == gamma)) if np.any(own.gamma == gamma) else None
        if line is None:
            continue
        style = style_of(gamma, gammas)
        _law(axes, result, line, gamma=gamma, colour=str(style["color"]))
        tokens = line.batch_size * (gamma + 1)
        axes.plot(tokens, 1e3 * line.target_verify_s, linestyle="none", markersize=5, label=f"verify, gamma {gamma}", **style)  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    axes.set_ylabel("target forward, ms")


def _law(axes: Axes, result: FitResult, points: StepData, *, gamma: int, colour: str) -> None:
    batch = np.geomspace(points.batch_size.min(), points.batch_size.max(), _DENSE)
    context = float(points.context_tokens.mean())
    grid = Grid(batch_size=batch, gamma=float(gamma), top_k=points.top_k[0], context_tokens=context)
    times = result.round_seconds(grid, int(points.ranks[0]))
    seconds = times.target_verify_s  # of 1 token each at gamma 0
    axes.plot(batch * (gamma + 1), 1e3 * seconds, color=colour, linewidth=1)


def _residuals(axes: Axes, result: FitResult, top_k: float, ranks: int) -> None:
    found = forward_residuals(result)
    for regime, colour in _COLOURS.items():
        if not np.any(found.regime == regime.value):
            continue
        here = (found.top_k == top_k) & (found.ranks == ranks) & (found.regime == regime.value)
        look: dict[str, Any] = {"color": colour, "markersize": 4, "label": regime.value}
        axes.plot(found.gate_tokens[here], 100.0 * found.logs[here], "o", **look)
    axes.axhline(0.0, color="black", linewidth=1)
    axes.set_ylabel("100 ln(predicted / measured), held out")


def _tokens(data: StepData) -> _Floats:
    return np.unique(np.concatenate([data.batch_size, data.batch_size * (data.gamma + 1.0)]))


def _notes(result: FitResult) -> list[str]:
    return [
        f"left: measured, and the law fitted to {len(result.fitted)} of {len(result.sample.data)} points",
        f"right: each point predicted without it ({result.headline.value} held out)",
    ]
