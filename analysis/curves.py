"""Summary curves over the batch size, as a tracker keeps them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from analysis.series import Setting, by_batch, by_gamma, by_setting, of_role, timed
from moesd_dist.records import Measurement, Role
from moesd_dist.sweep.statistics import metrics

_OF_SD = ("speedup", "target_efficiency", "acceptance_length", "tokens_per_s")
_OF_RANKS = ("load_imbalance", "communication_share", "waiting_share")  # that share experts


def summary_curves(measurements: Sequence[Measurement]) -> dict[str, dict[int, float]]:
    """Such as `speedup_gamma_3` to {batch size: value}; of untimed points acceptance alone.

    Whatever else varies in the sweep is appended: `speedup_gamma_3_top_k_4_temperature_1`.
    """
    curves: dict[str, dict[int, float]] = {}
    for setting, members in by_setting(measurements).items():
        for name, curve in _of_setting(members).items():
            # SD axes do not apply to a baseline, so several settings may share one.
            curves.setdefault(name + suffix(setting), {}).update(curve)
    return curves


def suffix(setting: Setting) -> str:
    """Only characters that every tracker takes in a name."""
    return re.sub(r"[^\w.-]+", "_", "".join(f"_{name}_{value}" for name, value in setting))


def _of_setting(members: Sequence[Measurement]) -> dict[str, dict[int, float]]:
    curves: dict[str, dict[int, float]] = {}
    for gamma, line in by_gamma(members).items():
        found = {m.point.batch_size: metrics(m) for m in line}
        for name in (*_OF_SD, *_OF_RANKS):
            curves[f"{name}_gamma_{gamma}"] = {
                b: values[name] for b, values in found.items() if name in values
            }
    if baseline := _baseline(members):
        curves["tokens_per_s_baseline"] = baseline
    if control := by_batch(of_role(timed(members), Role.control)):
        curves["speedup_control"] = {m.point.batch_size: metrics(m)["speedup"] for m in control}
    return {name: curve for name, curve in curves.items() if curve}


def _baseline(members: Sequence[Measurement]) -> dict[int, float]:
    """A baseline's own measurement; where there is none, the one an SD point was paired with."""
    known = timed(members)
    own = of_role(known, Role.baseline)
    found = by_batch([*(m for m in known if m.point.role is not Role.baseline), *own])
    return {m.point.batch_size: metrics(m)["baseline_tokens_per_s"] for m in found}
