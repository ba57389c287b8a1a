"""Errors of a forecast over the batch size, as a tracker keeps them."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.ep_validation.comparison import Comparison
from analysis.ep_validation.verdict import Verdict


def error_curves(comparisons: Sequence[Comparison]) -> dict[str, dict[int, float]]:
    """Such as `forecast_error_speedup_ep_2_gamma_3` to {batch size: error}; 0.1 is 10 % too high."""
    curves: dict[str, dict[int, float]] = {}
    for c in comparisons:
        nodes = f"_nodes_{c.place.nodes}" if c.place.nodes > 1 else ""
        name = f"forecast_error_{c.name}_ep_{c.place.ranks}{nodes}_gamma_{c.place.gamma}"
        curves.setdefault(name, {})[c.place.batch_size] = c.error
    return curves


def verdict_curves(found: Sequence[Verdict]) -> dict[str, dict[int, float]]:
    """Of each quantity one value, at step 0: worst and median error, share of points within."""
    curves: dict[str, dict[int, float]] = {}
    for v in found:
        curves[f"forecast_worst_error_{v.name}"] = {0: abs(v.worst.error)}
        curves[f"forecast_median_error_{v.name}"] = {0: v.median_error}
        curves[f"forecast_within_{v.name}"] = {0: v.within / v.points}
    return curves
