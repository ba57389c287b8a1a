"""Speedup and target efficiency over sequences a rank, a line for each number of ranks that share experts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes

from analysis.canvas import counts_axis, entitle, footnote, paper, save
from analysis.series import Setting, by_batch, by_gamma, by_setting, text_of, timed
from moesd_dist.records import Measurement
from moesd_dist.sweep.statistics import metrics

_PANELS = ("speedup", "target_efficiency")
_LAYOUT = ("ep_size", "dp_size")
_ROWS = 12  # of panels: a page has an end

Line = tuple[Setting, int]
"""All that lines of one row have in common: the setting without its ranks, and gamma."""


def scale_figure(measurements: Sequence[Measurement], path: Path) -> Path | None:
    """One row a setting and gamma; None, and no file, unless several numbers of ranks were timed."""
    known = [m for m in timed(measurements) if m.point.gamma]
    counts = sorted({m.point.layout.dp_size for m in known})
    if len(counts) < 2:
        return None
    found = _rows(known)
    shown = dict(list(found.items())[:_ROWS])
    figure, rows = paper(len(shown))
    for panels, (line, members) in zip(rows, shown.items(), strict=True):
        for axes, name in zip(panels, _PANELS, strict=True):
            _draw(axes, name, members, counts)
        panels[0].set_title(text_of((*line[0], ("gamma", str(line[1])))), loc="left", fontsize=10)
        panels[0].axhline(1.0, color="black", linewidth=1)
    rows[0][0].legend(fontsize=8, ncols=2, title="ranks; star: highest", title_fontsize=8)
    for axes in rows[-1]:
        axes.set_xlabel("sequences B per rank")
    entitle(figure, known)
    left_out = [f"the first {_ROWS} of {len(found)} rows"] if len(found) > _ROWS else []
    footnote(figure, [*left_out, "B per rank: all sequences over ranks"])
    return save(figure, path)


def _rows(known: Sequence[Measurement]) -> dict[Line, list[Measurement]]:
    found: dict[Line, list[Measurement]] = {}
    for place, members in by_setting(known).items():
        rest = tuple(pair for pair in place if pair[0] not in _LAYOUT)
        for gamma, line in by_gamma(members).items():
            found.setdefault((rest, gamma), []).extend(line)
    return found


def _draw(axes: Axes, name: str, members: Sequence[Measurement], counts: Sequence[int]) -> None:
    for place, ranks in enumerate(counts):
        line = by_batch([m for m in members if m.point.layout.dp_size == ranks])
        if not line:
            continue
        colour = colormaps["viridis_r"](0.12 + 0.88 * place / (len(counts) - 1))
        sizes = [m.point.batch_size / ranks for m in line]
        values = [metrics(m)[name] for m in line]
        axes.plot(sizes, values, "o-", markersize=3, color=colour, label=str(ranks))
        best = max(range(len(values)), key=values.__getitem__)
        axes.plot(sizes[best], values[best], "*", markersize=11, color=colour)
    counts_axis(axes, sorted({-(-m.point.batch_size // m.point.layout.dp_size) for m in members}))
    axes.set_ylabel(name.replace("_", " "))
