"""Activated experts as a picture: what was measured beside what uniform routing would give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from analysis.canvas import counts_axis, entitle, footnote, paper, save, style_of
from analysis.series import by_gamma, by_setting, text_of
from moesd_dist.records import Measurement
from moesd_dist.theory.experts import expected_activated_experts

_DECODING = {"color": "black", "marker": "o", "markerfacecolor": "none", "markersize": 10}
_NOTES = (
    "activated experts: mean of one layer in one forward",
    "below 1, tokens share experts more than under uniform, independent routing",
)


def experts_figure(measurements: Sequence[Measurement], path: Path) -> Path | None:
    """Counts beside the uniform law N(t), and their ratio; None, and no file, without counts."""
    counted = [m for m in measurements if m.num_experts and m.activated_experts]
    if not counted:
        return None
    settings = by_setting(counted)
    figure, rows = paper(len(settings))
    for panels, (place, members) in zip(rows, settings.items(), strict=True):
        _draw(*panels, members, list(by_gamma(counted)))
        panels[0].set_title(text_of(place), loc="left", fontsize=10)
    tokens = [t for members in settings.values() for line in counts(members).values() for t in line]
    _finish(rows, tokens)
    entitle(figure, measurements)
    footnote(figure, _NOTES)
    return save(figure, path)


def counts(members: Sequence[Measurement]) -> dict[int, dict[int, float]]:
    """Gate tokens to activated experts by gamma; 0 is decoding, which SD points bring along."""
    found: dict[int, dict[int, float]] = {0: {}}
    for m in sorted(members, key=lambda m: (m.point.gamma, m.point.batch_size)):
        gate_tokens = m.point.batch_size * m.repeats[0].tokens_per_forward
        if m.point.gamma:
            found[0].setdefault(m.point.batch_size, m.baseline_activated_experts)
        found.setdefault(m.point.gamma, {}).setdefault(gate_tokens, m.activated_experts)
    return found


def _draw(left: Axes, right: Axes, members: Sequence[Measurement], gammas: Sequence[int]) -> None:
    num_experts, top_k = members[0].num_experts, members[0].top_k
    lines = counts(members)
    for gamma, line in lines.items():
        tokens, seen = np.array(list(line)), np.array(list(line.values()))
        ratio = seen / expected_activated_experts(num_experts, top_k, tokens)
        name = f"verification, gamma = {gamma}" if gamma else "decoding"
        style = style_of(gamma, gammas) if gamma else _DECODING
        left.plot(tokens, seen, linestyle="none", label=name, **style)
        right.plot(tokens, ratio, linewidth=1.2, label=name, **style)
    _law(left, num_experts, top_k, max(t for line in lines.values() for t in line))
    right.axhline(1.0, color="0.4", linewidth=1)
    left.legend(fontsize=9)
    left.set_ylabel("activated experts")
    simulated = any(m.point.simulated for m in members)
    right.set_ylabel("simulated / N(t)" if simulated else "measured / N(t)")


def _law(axes: Axes, num_experts: int, top_k: int, most: int) -> None:
    tokens = np.geomspace(1, max(2, most), 200)
    expected = expected_activated_experts(num_experts, top_k, tokens)
    name = f"N(t), uniform law, {num_experts} experts, top {top_k}"
    axes.plot(tokens, expected, color="0.4", linewidth=1.2, zorder=0, label=name)


def _finish(rows: Sequence[tuple[Axes, Axes]], tokens: Sequence[int]) -> None:
    for axes in (axes for pair in rows for axes in pair):
        counts_axis(axes, tokens)
    for axes in rows[-1]:
        axes.set_xlabel("gate tokens t of one forward")
    low, high = rows[0][1].get_ylim()
    rows[0][1].set_ylim(min(low, 0.75), max(high, 1.05))  # else noise fills the panel
