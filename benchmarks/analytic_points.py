"""How many points a second the analytic model predicts on one core: a million at a time.

    python -m benchmarks.analytic_points --points 1000000

Points differ in batch size, gamma, experts per token and context; each gives every part of a round
and a speedup. Two laws of routing: the uniform one, and a fitted one, whose gamma functions cost more.
"""

from __future__ import annotations

import argparse
import os
import time
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table

from analysis.published import counts_named
from moesd_dist.engines.analytic_model import zero_shot
from moesd_dist.hardware import achieved_of, device_figures, hardware_named
from moesd_dist.theory.routing_law import UNIFORM, RoutingLaw
from moesd_dist.theory.steps.model import Grid, StepModel

LAWS = {"uniform": UNIFORM, "fitted": RoutingLaw(popularity=12.0, fresh_share=0.78)}


def random_grid(points: int) -> Grid:
    rng = np.random.default_rng(0)
    return Grid(
        batch_size=rng.integers(1, 513, points),
        gamma=rng.integers(0, 9, points),
        top_k=rng.integers(1, 33, points),
        context_tokens=rng.uniform(16.0, 8192.0, points),
    )


def seconds(model: StepModel, grid: Grid) -> float:
    began = time.perf_counter()
    speedups = model.round_seconds(grid).speedup(0.8)
    spent = time.perf_counter() - began
    assert np.all(speedups > 0.0)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    hardware = hardware_named("A800")
    model = zero_shot(
        counts_named("qwen2_57b_a14b"), counts_named("qwen2_0_5b"),
        device_figures(hardware), achieved_of(hardware), tp_size=2,
    )  # fmt: skip
    grid = random_grid(options.points)
    table = Table("routing law", "seconds", "points/s", title=f"{options.points:,} points, one core")  # fmt: skip
    for name, law in LAWS.items():
        spent = median(seconds(replace(model, routing=law), grid) for _ in range(options.repeats))
        table.add_row(name, f"{spent:.2f}", f"{options.points / spent:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
