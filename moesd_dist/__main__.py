"""`python -m moesd_dist +exp=NAME`: compose, check, measure what is missing, show it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import hydra
from omegaconf import DictConfig
from rich.console import Console

from analysis.curves import summary_curves
from analysis.figures import experts_figure, sweep_figure
from analysis.report import sweep_table, verdict
from moesd_dist import build, config, specs
from moesd_dist.config import CONF
from moesd_dist.console import (
    POINTS_FAILED,
    ConsoleProgress,
    errors_as_one_line,
    fail,
    name,
)
from moesd_dist.ports import Tracker
from moesd_dist.records import SweepPoint
from moesd_dist.records.identity import identity
from moesd_dist.sweep.driver import SweepResult, run_sweep
from moesd_dist.sweep.ledger import Ledger
from moesd_dist.sweep.stopping import Stop

LOG_WIDTH = 120  # a log has no width of its own


def sweep_id(
    name: str, points: Sequence[SweepPoint], adaptive: config.AdaptiveConf | None = None
) -> str:
    """The same points under the same name are the same sweep, on any machine.

    An adaptive one is also known by how it chooses; not by when it stops, so that it can go on.
    """
    rule = (adaptive.objective, adaptive.start, adaptive.per_round) if adaptive else ()
    return identity((name, *sorted(point.point_id for point in points), *rule))


def run(composed: DictConfig) -> SweepResult:
    """One sweep from its composed configuration; ValueError before anything is spent."""
    conf = specs.conf_from(composed)
    points = specs.points_from(conf)
    plan = build.make_plan(conf, points)
    tracker = build.make_tracker(conf, composed)
    ledger, stop = Ledger(tracker), Stop()
    console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
    key = sweep_id(conf.sweep.name, points, conf.sweep.adaptive)
    ledger.open(key, conf.sweep.name, points)
    status = "incomplete"
    try:
        executor, progress = build.make_executor(conf), ConsoleProgress(console)
        result = run_sweep(points, ledger, executor, progress, plan, stop)
        show(result, tracker, Path(conf.output), console)
        status = "failed" if result.failed else "finished"
    finally:
        ledger.close(status)
    return result


def show(result: SweepResult, tracker: Tracker, folder: Path, console: Console) -> None:
    """Table, verdict, pictures and curves: printed, saved beside the run, and logged."""
    folder.mkdir(parents=True, exist_ok=True)
    table, sentences = sweep_table(result.outcomes), verdict(result.outcomes)
    sentences += [result.ending] if result.ending else []
    console.print(table)
    for sentence in sentences:
        console.print(sentence, markup=False, highlight=False)
    text = folder / "report.txt"
    with text.open("w", encoding="utf-8") as file:
        plain = Console(file=file, width=140)
        plain.print(table)
        plain.print("\n".join(sentences), markup=False, highlight=False)
    measured = result.measurements
    pictures = [
        sweep_figure(measured, folder / "speedup.png"),
        experts_figure(measured, folder / "experts.png"),
    ]
    for path in (text, *(picture for picture in pictures if picture)):
        tracker.log_file(path)
        console.print(f"saved {path}", soft_wrap=True, highlight=False)
    tracker.log_curves(summary_curves(measured))
    console.print(f"compare runs: {tracker.address}", soft_wrap=True, highlight=False)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def hydra_main(composed: DictConfig) -> None:
    # Caught in here: Hydra would print a line of its own for an exception that leaves the job.
    with errors_as_one_line():
        result = run(composed)
    if result.failed:
        names = "; ".join(f"{name(f.point)}: {f.reason}" for f in result.failed)
        fail(f"{len(result.failed)} points failed: {names}", POINTS_FAILED)


def main() -> None:
    """The console script."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come up as exceptions instead of a printed trace
    config.register()
    with errors_as_one_line():
        hydra_main()


if __name__ == "__main__":
    main()
