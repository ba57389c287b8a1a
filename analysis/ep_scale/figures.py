"""Pictures of speedups over sequences a rank, and of what moves them as ranks are added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from analysis.canvas import counts_axis, footnote, save
from analysis.ep_scale.surface import Surface
from moesd_dist.theory.expert_parallel.decomposition import efficiency_parts

_Floats = npt.NDArray[np.float64]

PARTS = {
    "experts": "#0072B2",
    "imbalance": "#D55E00",
    "communication": "#009E73",
    "rest": "#999999",
}
NOTE = "SIMULATED: data sheets and formulas, nothing was run; acceptance is given, not measured"


def ranks_style(ranks: int, all_ranks: Sequence[int]) -> dict[str, Any]:
    """The same colour for a number of ranks in every panel: few are light, many dark."""
    place = list(all_ranks).index(ranks) / max(1, len(all_ranks) - 1)
    return {"color": colormaps["viridis_r"](0.12 + 0.88 * place), "linewidth": 1.6}


def paper(rows: int, columns: int, title: str, **shared: Any) -> tuple[Figure, npt.NDArray[Any]]:
    """Panels under a title in red: nothing in these pictures was measured by us."""
    figure = Figure(figsize=(6.6 * columns, 1.4 + 3.7 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    title = fill(title, 62 * columns)
    figure.suptitle(f"*** SIMULATED ***\n{title}", fontsize=11, color="#B00000", weight="bold")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def speedup_figure(
    surfaces: Mapping[str, Mapping[str, Surface]], title: str, notes: Sequence[str], path: Path
) -> Path:
    """A row a model, a column an interconnect; stars are sweet spots."""
    columns = list(next(iter(surfaces.values())))
    figure, grid = paper(len(surfaces), len(columns), title, sharex=True, sharey=True)
    for panels, (model, found) in zip(grid, surfaces.items(), strict=True):
        for axes, name in zip(panels, columns, strict=True):
            _speedups(axes, found[name])
            axes.set_title(f"{model}, {name}", loc="left", fontsize=10)
        panels[0].set_ylabel("speedup")
    for axes in grid[-1]:
        axes.set_xlabel("sequences B per rank")
    grid[0][0].legend(fontsize=8, ncols=2, title="ranks = EP; star: sweet spot", title_fontsize=8)
    footnote(figure, [NOTE, *notes])
    return save(figure, path)


def _speedups(axes: Axes, surface: Surface) -> None:
    for place, ranks in enumerate(surface.ranks):
        style, values = ranks_style(ranks, surface.ranks), surface.speedup[place]
        axes.plot(surface.batch, values, label=str(ranks), **style)
        best = int(np.argmax(values))
        axes.plot(surface.batch[best], values[best], "*", markersize=11, color=style["color"])
    axes.axhline(1.0, color="black", linewidth=1)
    counts_axis(axes, surface.batch)


def small_batches_figure(
    whole: Surface, losses: Mapping[str, Surface], title: str, path: Path
) -> Path:
    """Left: the same sequences on more ranks. Right: how much B = 1 per rank loses to the peak."""
    figure, ((left, right),) = paper(1, 2, title)
    for place, ranks in enumerate(whole.ranks):
        left.plot(whole.batch, whole.speedup[place], label=str(ranks), **ranks_style(ranks, whole.ranks))  # fmt: skip
    left.axhline(1.0, color="black", linewidth=1)
    counts_axis(left, whole.batch)
    left.xaxis.set_major_locator(FixedLocator(list(whole.batch[::2])))  # long numbers touch
    left.set_xlabel("sequences over all ranks (below EP, some ranks have none)")
    left.set_ylabel(f"speedup, gamma = {whole.gamma}")
    left.legend(fontsize=8, ncols=2, title="ranks = EP", title_fontsize=8)
    for name, surface in losses.items():
        right.plot(surface.ranks, 100 * surface.loss_at_smallest, "o-", label=name)
    counts_axis(right, next(iter(losses.values())).ranks)
    right.set_xlabel("ranks = EP")
    right.set_ylabel("speedup at B = 1 per rank below the peak, %")
    right.legend(fontsize=8)
    footnote(figure, [NOTE])
    return save(figure, path)


def communication_figure(
    surfaces: Mapping[str, Surface], hidden: Mapping[str, Surface], title: str, path: Path
) -> Path:
    """A column an interconnect: the links' share of verification, and what hiding them brings."""
    figure, grid = paper(2, len(surfaces), title, sharex=True, sharey="row")
    for (top, bottom), (name, surface) in zip(grid.T, surfaces.items(), strict=True):
        for place, ranks in enumerate(surface.ranks):
            style = ranks_style(ranks, surface.ranks)
            share = surface.times.communication_share[place]
            top.plot(surface.batch, 100 * share, label=str(ranks), **style)
            gain = surface.speedup[place]
            bottom.plot(surface.batch, hidden[name].speedup[place] - gain, **style)
        top.axhline(20.0, color="black", linewidth=1, linestyle="--")
        top.set_title(name, loc="left", fontsize=10)
        bottom.axhline(0.0, color="black", linewidth=1)
        bottom.set_xlabel("sequences B per rank")
        for axes in (top, bottom):
            counts_axis(axes, surface.batch)
    grid[0][0].set_ylabel("links' share of verification, %")
    grid[1][0].set_ylabel("speedup with links hidden - with none hidden")
    grid[0][0].legend(fontsize=8, ncols=2, title="ranks = EP; dashed: 20 %", title_fontsize=8)
    footnote(figure, [NOTE, "hidden: communication behind computation, an assumption (0 or all)"])
    return save(figure, path)


def parts_figure(surface: Surface, chosen: Sequence[int], title: str, path: Path) -> Path:
    """What verification takes longer than decoding, cause by cause, in decoding forwards."""
    figure, (panels,) = paper(1, len(chosen), title, sharey=True)
    parts = efficiency_parts(surface.times.decode, surface.times.verify)
    for axes, ranks in zip(panels, chosen, strict=True):
        row = surface.ranks.index(ranks)
        _stacked(axes, surface.batch, {name: getattr(parts, name)[row] for name in PARTS})
        axes.set_title(f"EP {ranks}", loc="left", fontsize=10)
        axes.set_xlabel("sequences B per rank")
        counts_axis(axes, surface.batch)
    panels[0].set_ylabel("1 / target efficiency - 1, by cause")
    panels[0].legend(fontsize=8, loc="upper left")
    footnote(figure, [NOTE, f"gamma {surface.gamma}; below 0: more tokens even a cause out"])
    return save(figure, path)


def _stacked(axes: Axes, batch: Sequence[int], parts: Mapping[str, _Floats]) -> None:
    """Positive parts upwards, negative ones downwards; the line is their sum."""
    up, down = np.zeros(len(batch)), np.zeros(len(batch))
    for name, values in parts.items():
        rising, falling = np.maximum(values, 0.0), np.minimum(values, 0.0)
        look: dict[str, Any] = {"color": PARTS[name], "alpha": 0.75, "linewidth": 0}
        axes.fill_between(batch, up, up + rising, label=name, **look)
        axes.fill_between(batch, down, down + falling, **look)
        up, down = up + rising, down + falling
    axes.plot(batch, up + down, color="black", linewidth=1.2, label="sum")
    axes.axhline(0.0, color="black", linewidth=0.8)
