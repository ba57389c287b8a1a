"""Paper for figures: rows of two panels over batch-like axes, titles, labels and files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.heading import heading, labels
from moesd_dist.records import Measurement

# Okabe and Ito's colours, which colour-blind readers can tell apart; grey and black are not gammas.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_Shared = Literal["none", "all", "row", "col"]
_TICKS = 9  # more would touch each other
_TITLE_WIDTH, _NOTE_WIDTH = 150, 190  # characters across the page


def style_of(gamma: int, gammas: Sequence[int]) -> dict[str, Any]:
    """The same colour and marker for a gamma in every panel."""
    place = sorted(gammas).index(gamma)
    return {"color": _COLOURS[place % len(_COLOURS)], "marker": _MARKERS[place % len(_MARKERS)]}


def paper(rows: int) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """1400 x 600 pixels for a single row of two panels, alike in all rows."""
    return _panels(rows, sharex="all", sharey="col")


def side_by_side(rows: int) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """The same paper for two panels that show one quantity, another one in each row."""
    return _panels(rows, sharex="none", sharey="row")


def _panels(
    rows: int, *, sharex: _Shared, sharey: _Shared
) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    figure = Figure(figsize=(14, 6 if rows == 1 else 1.6 + 3.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, 2, squeeze=False, sharex=sharex, sharey=sharey)
    return figure, [(left, right) for left, right in grid]


def entitle(figure: Figure, measurements: Sequence[Measurement]) -> None:
    """What it is of; loud labels make the whole title red."""
    lines = [fill(line, _TITLE_WIDTH) for line in heading(measurements)]
    loud = labels(measurements)
    warning = [" *** ".join(["", *loud, ""]).strip()] if loud else []
    look = {"color": "#B00000", "weight": "bold"} if loud else {}
    figure.suptitle("\n".join([*warning, *lines]), fontsize=11, **look)


def footnote(figure: Figure, parts: Sequence[str]) -> None:
    figure.supxlabel(fill("; ".join(parts), _NOTE_WIDTH), fontsize=9, color="#444444")


def counts_axis(axes: Axes, values: Sequence[int]) -> None:
    """A log2 axis whose ticks are the measured numbers themselves."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(_thinned(sorted(set(values)))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    room = 1.25 if min(values) < max(values) else 2.5
    axes.set_xlim(min(values) / room, max(values) * room)
    axes.grid(alpha=0.25)


def save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=100, format="png")
    return path


def _thinned(values: list[int]) -> list[int]:
    """All of them; among many the powers of two in their range, or every so many."""
    if len(values) <= _TICKS:
        return values
    powers = [1 << n for n in range(values[-1].bit_length()) if values[0] <= 1 << n]
    return powers if len(powers) > 2 else values[:: -(-len(values) // _TICKS)]
