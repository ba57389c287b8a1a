"""Foretold against measured, one panel a quantity, with both intervals and the tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.canvas import entitle, footnote, save, style_of
from analysis.ep_validation.comparison import NAMES, Comparison
from analysis.ep_validation.verdict import Verdict
from moesd_dist.records import Measurement

_COLUMNS = 3
_NOTES = (
    "grey: the tolerance around foretold = measured",
    "bars: 95 % of one measurement as foretold (upright), 95 % over repeats as measured (flat)",
)


def validation_figure(
    comparisons: Sequence[Comparison],
    found: Sequence[Verdict],
    measured: Sequence[Measurement],
    path: Path,
    *,
    heading: str,
) -> Path | None:
    """None, and no file, where nothing was compared."""
    if not comparisons:
        return None
    rows = -(-len(found) // _COLUMNS)
    figure = Figure(figsize=(14, 1.6 + 4.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes, verdict in zip(panels, found, strict=False):
        _draw(axes, [c for c in comparisons if c.name == verdict.name], comparisons)
        axes.set_title(f"{NAMES[verdict.name]}: {verdict.result.value}", loc="left", fontsize=10)
    for axes in panels[len(found) :]:
        axes.set_visible(False)
    panels[0].legend(handles=_legend(comparisons), fontsize=8)
    entitle(figure, measured)
    footnote(figure, [heading, *_NOTES])
    return save(figure, path)


def _draw(axes: Axes, members: Sequence[Comparison], every: Sequence[Comparison]) -> None:
    for c in members:
        look = _look(c, every)
        across = (c.interval.low, c.interval.high) if c.interval else (c.measured, c.measured)
        axes.errorbar(
            c.measured,
            c.predicted.value,
            xerr=[[max(0.0, c.measured - across[0])], [max(0.0, across[1] - c.measured)]],
            yerr=[[_below(c)], [_above(c)]],
            linewidth=1,
            linestyle="none",
            markersize=6,
            zorder=3,
            **look,
        )
    ends = _ends(members)
    tolerance = members[0].tolerance
    axes.plot(ends, ends, color="0.4", linewidth=1, zorder=0)
    axes.fill_between(ends, ends * (1 - tolerance), ends * (1 + tolerance), color="0.9", zorder=-1)
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6))
        if members[0].name.endswith("_s"):
            axis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds * 1e3:g} ms"))
    axes.set_xlabel("measured")
    axes.set_ylabel("foretold")
    axes.grid(alpha=0.25)


def _below(c: Comparison) -> float:
    return max(0.0, c.predicted.value - c.predicted.low)


def _above(c: Comparison) -> float:
    return max(0.0, c.predicted.high - c.predicted.value)


def _ends(members: Sequence[Comparison]) -> np.ndarray:
    """The same on both axes, so that the diagonal is one; intervals may leave the panel."""
    values = [v for c in members for v in (c.measured, c.predicted.value)]
    room = 1.0 + max(0.1, members[0].tolerance)
    return np.array([min(values) / room, max(values) * room])


def _look(c: Comparison, every: Sequence[Comparison]) -> dict[str, Any]:
    """Colour by ranks, marker by gamma."""
    ranks = sorted({one.place.ranks for one in every})
    gammas = sorted({one.place.gamma for one in every})
    return {
        "color": style_of(c.place.ranks, ranks)["color"],
        "marker": style_of(c.place.gamma, gammas)["marker"],
    }


def _legend(comparisons: Sequence[Comparison]) -> list[Line2D]:
    found: dict[str, Line2D] = {}
    for c in comparisons:
        look = _look(c, comparisons)
        name = f"EP {c.place.ranks}, " + (
            f"gamma = {c.place.gamma}" if c.place.gamma else "decoding"
        )
        found.setdefault(name, Line2D([], [], linestyle="none", label=name, **look))
    return [found[name] for name in sorted(found)]
