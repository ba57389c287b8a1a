"""How long the fits take on 21 points of the committed grid: `python -m benchmarks.fit_time`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from moesd_dist.models.counts import counts_of
from moesd_dist.records.serial import measurement_from_plain
from moesd_dist.sweep.adaptive.observations import step_data
from moesd_dist.theory.devices.device import DeviceFigures
from moesd_dist.theory.moesd.from_steps import MoesdModel
from moesd_dist.theory.steps.fit import fit_steps

GRID = Path(__file__).parents[1] / "docs" / "results" / "full_grid_cpu" / "points.json"
REPEATS = 20
# Near what `jobs.calibrate_cpu` finds here; they set the limits of a search, not its length.
FIGURES = DeviceFigures(
    flops=6e11,
    bytes_per_s=4.2e10,
    memory_bytes=2.4e10,
    clock_hz=3e9,
    link_bytes_per_s=1e10,
    link_latency_s=1e-5,
)


def main() -> None:
    measured = [measurement_from_plain(plain) for plain in json.loads(GRID.read_text())]
    data = step_data(measured)
    chosen = np.floor(np.arange(21) * len(data) / 21).astype(int)
    some = data.take(np.lexsort((data.batch_size, data.gamma, data.top_k))[chosen])
    point = next(m.point for m in measured if m.point.sd.draft)
    assert point.sd.draft is not None
    target, draft = counts_of(point.target), counts_of(point.sd.draft)
    moesd = MoesdModel(target=target, draft=draft, figures=FIGURES, multistart=3)
    report("ours: target, draft, rejection, routing", lambda: fit_steps(some, target=target, draft=draft))  # fmt: skip
    report("MoESD's ten parameters, 3 starts", lambda: moesd.fit(some))


def report(name: str, run: Callable[[], object]) -> None:
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    print(f"{name:42} median {median(seconds):.3f} s, most {max(seconds):.3f} s over {REPEATS}")


if __name__ == "__main__":
    main()
