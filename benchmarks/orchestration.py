"""What a sweep costs beside its measurements: `python -m benchmarks.orchestration 1000 10000`.

Runs `python -m moesd_dist` as a user would, through Ray and into a fresh sqlite database, with the
analytic engine; then the same command once more, which finds everything finished.
"""

from __future__ import annotations

import argparse
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from moesd_dist import build, config, specs
from moesd_dist.one_sweep import Job, points_of
from moesd_dist.sweep.grouping import engine_key, groups
from moesd_dist.sweep.pairing import LoadLimit, measure_group

GAMMAS = (0, 1, 2, 3, 4)
WHOLE_S, RESUME_S, POINT_MS, MEMORY_MIB = 180.0, 15.0, 20.0, 1024.0  # the bars, of 10,000 points
FLAT = 1.25  # a point may cost this much more among 10,000 than among 1,000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds are wall-clock; `measuring_s` is what the engine alone takes for the same points."""

    points: int
    first_s: float
    measuring_s: float
    resume_s: float
    start_s: float  # of the command with a single point
    peak_mib: float  # of the driver

    @property
    def overhead_ms(self) -> float:
        """Of a point: without what the command takes to start and end, and without the engine."""
        return 1e3 * (self.first_s - self.start_s - self.measuring_s) / self.points


def command(points: int, folder: Path) -> list[str]:
    """Every batch size up to 400 with every gamma, then with other prompts: all of it fits the device."""
    seeds = max(1, points // (400 * len(GAMMAS)))
    batches = ",".join(str(b) for b in range(1, points // len(GAMMAS) // seeds + 1))
    gammas = ",".join(map(str, GAMMAS)) if points > 1 else "0"
    return [
        *(sys.executable, "-m", "moesd_dist", "+exp=zero_shot_qwen2", "launcher=ray"),
        *(f"sweep.batch_size=[{batches or 1}]", f"sweep.gamma=[{gammas}]"),
        f"+sweep.axes={{workload.seed: {list(range(seeds))}}}",
        *(f"tracking.uri=sqlite:///{folder}/mlflow.db", f"hydra.run.dir={folder}/output"),
    ]


def run(points: int, folder: Path) -> tuple[float, float]:
    """Wall seconds, and the peak memory of the driver in MiB; its children do not count."""
    measured = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen(sys.argv[1:], stdout=open(os.devnull, 'w'))\n"
        "_, status, used = os.wait4(child.pid, 0)\n"
        "print(used.ru_maxrss)\n"
        "sys.exit(os.waitstatus_to_exitcode(status))\n"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", measured, *command(points, folder)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return time.perf_counter() - start, int(done.stdout) / 1024


def measuring_s(points: int, folder: Path) -> float:
    """What the engine alone takes for the same points, in this process."""
    overrides = [word for word in command(points, folder)[3:] if not word.startswith("hydra.")]
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        conf = specs.conf_from(compose("config", overrides=[*overrides, f"output={folder}"]))
    todo = groups(points_of([Job(conf=conf)]), ())
    engine, limit = build.make_engine(engine_key(todo[-1])), LoadLimit()
    start = time.perf_counter()
    for group in todo:
        measure_group(engine, group, limit)
    return time.perf_counter() - start


def cost(points: int, start_s: float) -> Cost:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first_s, peak_mib = run(points, folder)
        resume_s, _ = run(points, folder)
        _check(points, folder)
        return Cost(
            points=points,
            first_s=first_s,
            measuring_s=measuring_s(points, folder),
            resume_s=resume_s,
            start_s=start_s,
            peak_mib=peak_mib,
        )


def _check(points: int, folder: Path) -> None:
    """Every point has one finished run: a fast sweep that loses some is none."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        query = "select count(*) from tags where key = 'moesd.finished' and value = 'true'"
        ((found,),) = database.execute(query)
    if found != points:
        raise SystemExit(f"{points} points were swept, {found} have a finished run")


def table_of(costs: Sequence[Cost]) -> Table:
    columns = "points", "wall s", "measuring s", "ms/point beside it", "driver MiB", "resume s"
    table = Table(*columns, title="A sweep of predictions through Ray, into sqlite")
    for c in costs:
        figures = c.first_s, c.measuring_s, c.overhead_ms, c.peak_mib, c.resume_s
        table.add_row(f"{c.points:,}", *(f"{figure:.1f}" for figure in figures))
    return table


def verdicts(costs: Sequence[Cost]) -> list[str]:
    """A line a bar; those on time and memory are of the largest sweep."""
    least, most = costs[0], costs[-1]
    bars = [
        (f"{most.points:,} points in {most.first_s:.0f} s", most.first_s < WHOLE_S, WHOLE_S, "s"),
        (f"resumed in {most.resume_s:.1f} s", most.resume_s < RESUME_S, RESUME_S, "s"),
        (f"{most.overhead_ms:.1f} ms a point", most.overhead_ms < POINT_MS, POINT_MS, "ms"),
        (f"driver {most.peak_mib:.0f} MiB", most.peak_mib < MEMORY_MIB, MEMORY_MIB, "MiB"),
    ]
    lines = [
        f"{'met' if met else 'MISSED'}: {what} (bar: {bar:g} {unit})"
        for what, met, bar, unit in bars
    ]
    if len(costs) > 1:
        growth = most.overhead_ms / least.overhead_ms
        met = "met" if growth < FLAT else "MISSED"
        lines.append(
            f"{met}: a point costs {growth:.2f} times as much among {most.points:,} as among "
            f"{least.points:,} (bar: {FLAT:g})"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("points", type=int, nargs="*", default=[1000, 10_000])
    sizes = sorted(parser.parse_args().points)
    config.register()
    with tempfile.TemporaryDirectory() as folder:
        start_s, _ = run(1, Path(folder))
    costs = [cost(points, start_s) for points in sizes]
    console = Console()
    console.print(table_of(costs))
    for line in verdicts(costs):
        console.print(line, highlight=False)


if __name__ == "__main__":
    main()
