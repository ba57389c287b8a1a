"""A sweep as a picture: speedup beside target efficiency, over the batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from analysis.canvas import counts_axis, entitle, footnote, paper, save, style_of
from analysis.experts import experts_figure
from analysis.heading import flagged
from analysis.series import by_batch, by_gamma, by_setting, of_role, text_of, timed
from moesd_dist.records import Measurement, Role
from moesd_dist.sweep.statistics import metrics
from moesd_dist.theory.experts import full_activation_threshold

__all__ = ["experts_figure", "sweep_figure"]

_THRESHOLD = "T_thres / (gamma+1): 95 % of experts expected active"
_CONTROL = {"color": "0.45", "marker": "x"}
_PANELS = ("speedup", "target_efficiency")


def sweep_figure(measurements: Sequence[Measurement], path: Path) -> Path | None:
    """One row of panels a setting of the sweep; None, and no file, where SD was not timed."""
    known = timed(measurements)
    settings = {place: ms for place, ms in by_setting(known).items() if by_gamma(ms)}
    if not settings:
        return None
    figure, rows = paper(len(settings))
    gammas = list(by_gamma(known))
    for panels, (place, members) in zip(rows, settings.items(), strict=True):
        for axes, name in zip(panels, _PANELS, strict=True):
            _draw(axes, name, members, gammas)
        panels[0].set_title(text_of(place), loc="left", fontsize=10)
        panels[0].axhline(1.0, color="black", linewidth=1)
        panels[0].legend(fontsize=9)
    _scale(rows, [m for members in settings.values() for m in members])
    for row, members in zip(rows, settings.values(), strict=True):
        _thresholds(row, by_gamma(members), gammas)
    entitle(figure, known)
    footnote(figure, [*_footnotes(known), *flagged(measurements)])
    return save(figure, path)


def _draw(axes: Axes, name: str, members: Sequence[Measurement], gammas: Sequence[int]) -> None:
    for gamma, line in by_gamma(members).items():
        _errorbar(axes, name, line, {**style_of(gamma, gammas), "label": f"gamma = {gamma}"})
    if control := by_batch(of_role(members, Role.control)):
        _errorbar(axes, name, control, {**_CONTROL, "label": "A/A control", "linestyle": ":"})
    axes.set_ylabel(name.replace("_", " "))


def _errorbar(axes: Axes, name: str, line: Sequence[Measurement], style: dict[str, Any]) -> None:
    found = [metrics(m) for m in line]
    values = [f[name] for f in found]
    below = [v - f.get(f"{name}_low", v) for f, v in zip(found, values, strict=True)]
    above = [f.get(f"{name}_high", v) - v for f, v in zip(found, values, strict=True)]
    sizes = [m.point.batch_size for m in line]
    axes.errorbar(
        sizes, values, yerr=[below, above], capsize=3, linewidth=1.6, elinewidth=1, **style
    )


def _scale(rows: Sequence[tuple[Axes, Axes]], drawn: Sequence[Measurement]) -> None:
    for axes in (axes for pair in rows for axes in pair):
        counts_axis(axes, [m.point.batch_size for m in drawn])
    for axes, name in zip(rows[-1], _PANELS, strict=True):
        axes.set_xlabel("batch size B")
        axes.set_ylim(*_limits([metrics(m) for m in drawn if m.point.gamma], name))


def _limits(found: Sequence[Mapping[str, float]], name: str) -> tuple[float, float]:
    """Room for points, 1, a legend and intervals; those of two repeats may reach far beyond."""
    values = [f[name] for f in found]
    low = min(f.get(f"{name}_low", f[name]) for f in found)
    high = max(f.get(f"{name}_high", f[name]) for f in found)
    bottom = min(1.0, max(low, 0.5 * min(values)))
    return 0.95 * bottom, 1.12 * max(1.0, min(high, 1.5 * max(values)))


def _thresholds(
    panels: tuple[Axes, Axes], lines: Mapping[int, Sequence[Measurement]], gammas: Sequence[int]
) -> None:
    """Where verification is expected to wake 95 % of the experts up; nothing for a dense target."""
    places = {gamma: _threshold(line[0]) for gamma, line in lines.items() if line[0].num_experts}
    left, right = panels[0].get_xlim()
    inside = {gamma: place for gamma, place in places.items() if left < place < right}
    for axes in panels:
        for step, (gamma, place) in enumerate(inside.items()):
            colour = style_of(gamma, gammas)["color"]
            axes.axvline(place, color=colour, linestyle="--", linewidth=1, alpha=0.8)
            axes.annotate(
                f" {place:.3g}",
                (place, 0.01 + 0.035 * (step % 3)),  # neighbours do not write over each other
                xycoords=("data", "axes fraction"),
                fontsize=8,
                color=colour,
            )
    if inside:
        (handle,) = panels[1].plot([], [], color="0.3", linestyle="--", linewidth=1)
        panels[1].legend([handle], [_THRESHOLD], fontsize=9, loc="upper right")


def _threshold(m: Measurement) -> float:
    tokens = full_activation_threshold(m.num_experts, m.top_k, tau=0.95)
    return tokens / m.repeats[0].tokens_per_forward


def _footnotes(measurements: Sequence[Measurement]) -> list[str]:
    sd = [m for m in measurements if m.point.gamma]
    verified = {r.tokens_per_forward - m.point.gamma for m in sd for r in m.repeats}
    tokens = "gamma + 1" if verified == {1} else "as recorded: gamma + " + _span(verified)
    repeats = {len(m.repeats) for m in sd}
    bars = "bars: 95 % interval over paired repeats" if max(repeats) > 1 else "no interval"
    return [
        "target efficiency: T_T(B,1) / T_T(B,gamma+1)",
        f"tokens verified per sequence and forward: {tokens}",
        f"repeats: {_span(repeats)} ({bars})",
    ]


def _span(values: set[int]) -> str:
    return " or ".join(map(str, sorted(values)))
