"""Fits one run, predicts another: `python -m benchmarks.across_runs`. Prints a table of held-out errors.

The two full grids are two measurements of the same 80 points with other prompts; their own difference is
what no prediction can beat. `adaptive_12` is a live adaptive sweep with a third choice of prompts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moesd_dist.cpu_cache import NO_LINK_BYTES_PER_S, NO_LINK_S
from moesd_dist.models.counts import counts_of
from moesd_dist.records import Measurement
from moesd_dist.records.serial import measurement_from_plain
from moesd_dist.sweep.adaptive.observations import step_data
from moesd_dist.theory.devices.device import DeviceFigures
from moesd_dist.theory.moesd.from_steps import MoesdModel
from moesd_dist.theory.moesd.strides import evenly_spaced
from moesd_dist.theory.steps.data import StepData
from moesd_dist.theory.steps.priors import Peaks
from moesd_dist.theory.steps.settings import expected_at
from moesd_dist.theory.validation.forecast import Forecaster, step_forecaster
from moesd_dist.theory.validation.scores import errors

RESULTS = Path(__file__).parents[1] / "docs" / "results"
# `python -m jobs.calibrate_cpu` just before the second grid, on the quiet machine.
FIGURES = DeviceFigures(
    flops=458e9,
    bytes_per_s=37.8e9,
    memory_bytes=25.2e9,
    clock_hz=2.6e9,
    link_bytes_per_s=NO_LINK_BYTES_PER_S,
    link_latency_s=NO_LINK_S,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    name: str
    data: StepData

    def strided(self, count: int) -> tuple[Run, Run]:
        """So many evenly spaced points, and the others."""
        order = np.lexsort((self.data.batch_size, self.data.gamma, self.data.top_k))
        chosen = order[evenly_spaced(count, len(order))]
        rest = np.setdiff1d(order, chosen)
        return (
            Run(name=f"{count} strided of {self.name}", data=self.data.take(chosen)),
            Run(name="its others", data=self.data.take(rest)),
        )


def load(name: str) -> list[Measurement]:
    text = (RESULTS / name / "points.json").read_text(encoding="utf-8")
    return [measurement_from_plain(plain) for plain in json.loads(text)]


def main() -> None:
    measured = load("full_grid_cpu")
    point = next(m.point for m in measured if m.point.sd.draft)
    assert point.sd.draft is not None
    target, draft = counts_of(point.target), counts_of(point.sd.draft)
    peaks = Peaks(bytes_per_s=FIGURES.bytes_per_s, flops=FIGURES.flops)
    ours = step_forecaster(target, draft, peaks)
    moesd = MoesdModel(target=target, draft=draft, figures=FIGURES)
    first = Run(name="grid 1", data=step_data(measured))
    second = Run(name="grid 2", data=step_data(load("full_grid_2_cpu")))
    adaptive = Run(name="adaptive 12, live", data=step_data(load("adaptive_12_cpu")))
    pairs = [first.strided(21), second.strided(21), first.strided(12), second.strided(12)]
    pairs += [(first.strided(21)[0], second), (second.strided(21)[0], first)]
    pairs += [(adaptive, first), (adaptive, second), (first, second), (second, first)]
    print(f"{'fitted':24} {'predicted':12} {'ours: blind':>14} {'sigma given':>12} {'in 95 %':>8} {'MoESD: blind':>14} {'sigma given':>12}")  # fmt: skip
    for fitted, predicted in pairs:
        report(fitted, predicted, {"ours": ours, "moesd": moesd.forecast})
    print(
        f"\nmeasured again: speedups of grid 2 over those of grid 1 {differ(first.data, second.data)}"
    )


def report(fitted: Run, predicted: Run, forecasters: dict[str, Forecaster]) -> None:
    """One row: mean and worst error, and how many lay in the interval of one measurement."""
    settings = [(run.data.top_k == 8).astype(int) for run in (fitted, predicted)]
    expected = expected_at(fitted.data, settings[0], predicted.data, settings[1])
    row = f"{fitted.name:24} {predicted.name:12}"
    for forecaster in forecasters.values():
        found = forecaster(fitted.data, predicted.data, expected)
        blind, given = (
            errors(speedup, predicted.data.speedup)
            for speedup in (found.speedup, found.speedup_given_sigma)
        )
        row += f" {blind.mape:6.2%} {f'({blind.worst:.1%})':>7} {given.mape:12.2%}"
        if found.low is not None and found.high is not None:
            seen = predicted.data.speedup
            row += f" {np.mean((found.low <= seen) & (seen <= found.high)):8.0%}"
    print(row)


def differ(one: StepData, other: StepData) -> str:
    """Mean and worst difference of the same points."""
    places = [list(zip(d.batch_size, d.gamma, d.top_k, strict=True)) for d in (one, other)]
    found = dict(zip(places[1], other.speedup, strict=True))
    again = errors([found[place] for place in places[0]], one.speedup)
    return f"are off by {again.mape:.1%} on average and {again.worst:.1%} at worst, {again.bias:+.1%} in the mean"  # fmt: skip


if __name__ == "__main__":
    main()
