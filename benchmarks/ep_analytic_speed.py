"""How long 100,000 analytic points of expert parallelism take on one core: as arrays, and one by one.

    python -m benchmarks.ep_analytic_speed --points 100000

Points are of DeepSeek-V3, Qwen3-235B and Kimi-K2 on 2 to 512 H800 and differ in ranks, batch size and
gamma. Arrays go through `EpModel`; one by one each is a point of a sweep that the engine answers as it
answers a driver, with a record. Of 100,000 a batch size of a layout comes up 29 times, at nine gammas in
any order: the engine evaluates them once, together. The bar is 20 s.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from moesd_dist.config import EngineConf, EngineKind
from moesd_dist.engines.analytic import AnalyticEngine
from moesd_dist.engines.analytic_model import model_of
from moesd_dist.engines.analytic_ranks import ranks_model
from moesd_dist.hardware import hardware_named, model_named
from moesd_dist.records import (
    Device,
    DraftMethod,
    LayoutSpec,
    SdSpec,
    SimulationSpec,
    SweepPoint,
    WorkloadSpec,
)
from moesd_dist.simulation import simulation_spec
from moesd_dist.specs import model_spec
from moesd_dist.theory.expert_parallel.step import EpGrid

TARGETS = ("deepseek_v3", "qwen3_235b_a22b", "kimi_k2")
RANKS = (2, 4, 8, 16, 32, 64, 128, 256, 512)
HARDWARE = "H800"
BAR_S = 20.0

_Ints = npt.NDArray[np.int64]


def drawn(points: int) -> Iterator[tuple[str, int, _Ints, _Ints]]:
    """Batch sizes and gammas of each target and number of ranks."""
    rng = np.random.default_rng(0)
    kinds = list(product(TARGETS, RANKS))
    for place, (target, ranks) in enumerate(kinds):
        count = points // len(kinds) + (place < points % len(kinds))
        yield target, ranks, ranks * rng.integers(1, 129, count), rng.integers(0, 9, count)


def a_point(target: str, ranks: int) -> SweepPoint:
    layout = LayoutSpec(dp_size=ranks, ep_size=ranks)
    conf = EngineConf(EngineKind.analytic)
    return SweepPoint(
        engine="analytic",
        target=model_spec(model_named(target)),
        workload=WorkloadSpec(
            name="random", prompt_tokens_min=100, prompt_tokens_max=300, output_tokens=400
        ),
        batch_size=1,
        gamma=1,
        sd=SdSpec(method=DraftMethod.ngram, synthetic_acceptance=(0.8,)),
        hardware=HARDWARE,
        device=Device.cuda,
        layout=layout,
        simulation=simulation_spec(hardware_named(HARDWARE), conf, layout),
    )


def simulation_of(point: SweepPoint) -> SimulationSpec:
    assert point.simulation is not None
    return point.simulation


def as_arrays(points: int) -> None:
    """A grid for each target, ranks within it: their model is the same but for the links."""
    parts = list(drawn(points))
    for target in TARGETS:
        mine = [part for part in parts if part[0] == target]
        columns = [np.concatenate([part[place] for part in mine]) for place in (2, 3)]
        ranks = np.concatenate([np.full(len(part[2]), part[1]) for part in mine])
        point = a_point(target, max(RANKS))
        step = model_of(point.target, None, simulation_of(point), tp_size=1)
        model = ranks_model(step, point.layout, simulation_of(point))
        grid = EpGrid(
            batch_size=columns[0], gamma=columns[1], top_k=8, context_tokens=400.0, ranks=ranks
        )
        assert np.all(model.round_seconds(grid).speedup(0.8) > 0.0)


def one_by_one(points: int) -> None:
    """An engine for each target and layout, as a sweep would make them."""
    for target, ranks, batch_sizes, gammas in drawn(points):
        base = a_point(target, ranks)
        engine = AnalyticEngine(
            target=base.target,
            draft=None,
            simulation=simulation_of(base),
            hardware=base.hardware,
            layout=base.layout,
        )
        for batch_size, gamma in zip(batch_sizes.tolist(), gammas.tolist(), strict=True):
            assert (
                engine.measure(replace(base, batch_size=batch_size, gamma=gamma), 0).seconds > 0.0
            )


def seconds(work: Callable[[int], None], points: int) -> tuple[float, float]:
    """By the clock, and of this process alone: a busy machine stretches the first."""
    began = time.perf_counter(), time.process_time()
    work(points)
    return time.perf_counter() - began[0], time.process_time() - began[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--points", type=int, default=100_000)
    options = parser.parse_args()
    table = Table("path", "seconds", "of a CPU", "us a point", "below the bar", title=f"{options.points:,} points, one core")  # fmt: skip
    for name, work in (("arrays", as_arrays), ("engine, one by one", one_by_one)):
        spent, busy = seconds(work, options.points)
        each = 1e6 * busy / options.points
        below = "yes" if spent < BAR_S else "no"
        table.add_row(name, f"{spent:.1f}", f"{busy:.1f}", f"{each:.0f}", below)
    Console().print(table)


if __name__ == "__main__":
    main()
