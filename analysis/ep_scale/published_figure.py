"""Published speedups on the axes of the predicted ones, and the error of each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from analysis.canvas import counts_axis, footnote, save
from analysis.ep_scale.figures import NOTE, paper
from analysis.ep_scale.predicted import Predicted, curve, end_to_end

_MARKERS = {2: "s", 3: "D"}  # by gamma: two points lie on one another
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
_BATCHES = np.unique(np.round(np.geomspace(1, 256, 30))).astype(np.int64)


def published_figure(predicted: Sequence[Predicted], path: Path) -> Path:
    """Left: between ranks. Right: one process by tensors, decoding alone and with prefill in it."""
    figure, ((left, right),) = paper(1, 2, "DeepSeek-V3: published speedups beside predicted ones", sharey=True)  # fmt: skip
    kinds = [(name, list(found)) for name, found in groupby(predicted, lambda p: p.point.name)]
    for colour, (name, found) in zip(_COLOURS, kinds, strict=True):
        by_tensors = found[0].point.tp_size > 1
        (_tensors if by_tensors else _ranks)(right if by_tensors else left, name, found, colour)
    for axes in (left, right):
        axes.axhline(1.0, color="black", linewidth=1)
        axes.legend(fontsize=8)
        counts_axis(axes, [int(b) for b in _BATCHES])
    left.set_xlabel("sequences B per rank")
    right.set_xlabel("sequences B, 8 devices as one")
    left.set_ylabel("speedup")
    footnote(figure, [NOTE, "points: published", "lines: predicted there, nothing fitted to them"])
    return save(figure, path)


def _ranks(axes: Axes, name: str, found: Sequence[Predicted], colour: str) -> None:
    """A point whose batch size was not printed is a band over all of them."""
    point, error = found[0].point, found[0].error
    axes.plot(_BATCHES, curve(point, _BATCHES), color=colour, linewidth=1.5)
    label = f"{name}, gamma {point.gamma}: {point.speedup:.2f}, predicted {error:+.0%}"
    if point.per_rank is None:
        axes.axhline(point.speedup, color=colour, linestyle="--", label=f"{label} at best")
    else:
        marker = _MARKERS.get(point.gamma, "o")
        axes.plot(point.per_rank, point.speedup, marker, markersize=9, color=colour, fillstyle="none", markeredgewidth=2, label=label)  # fmt: skip


def _tensors(axes: Axes, name: str, found: Sequence[Predicted], colour: str) -> None:
    point = found[0].point
    sizes = [p.per_rank for p in found]
    axes.plot(sizes, [p.point.speedup for p in found], "o", markersize=8, color=colour, label=f"{name}, gamma {point.gamma}, end to end")  # fmt: skip
    axes.plot(_BATCHES, curve(point, _BATCHES), color=colour, linewidth=1.5, label="predicted, decoding alone")  # fmt: skip
    axes.plot(_BATCHES, end_to_end(point, _BATCHES), color=colour, linestyle="--", label="predicted, prefill included")  # fmt: skip
