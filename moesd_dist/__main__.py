"""`python -m moesd_dist +exp=NAME`: compose, check, measure what is missing, show it."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import hydra
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from analysis.curves import summary_curves
from analysis.ep_validation.show import report_of, show_validation
from analysis.figures import experts_figure, sweep_figure
from analysis.ranks_figure import ranks_figure
from analysis.ranks_table import exchange_table
from analysis.report import sweep_table, verdict
from analysis.scale_figure import scale_figure
from moesd_dist import build, config, multirun, specs
from moesd_dist.config import CONF
from moesd_dist.console import (
    INTERRUPTED,
    NOT_TRACKED,
    POINTS_FAILED,
    ConsoleProgress,
    errors_as_one_line,
    fail,
    name,
)
from moesd_dist.multirun import Composed
from moesd_dist.one_sweep import Job, points_of
from moesd_dist.planning.expected import costs_of, earlier_of
from moesd_dist.planning.outlook import outlook
from moesd_dist.planning.staging import make_desk, staged
from moesd_dist.planning.text import show as show_outlook
from moesd_dist.ports import Tracker, TrackerUnavailable
from moesd_dist.records import SweepPoint
from moesd_dist.records.identity import identity
from moesd_dist.sweep.driver import SweepResult, run_sweep
from moesd_dist.sweep.stopping import Stop, listening
from moesd_dist.sweep.validation.staged import StagedPlan

_COLLECT_FROM = 100_000  # objects; Python's own is 700
LOG_WIDTH = 120  # a log has no width of its own


def sweep_id(
    name: str, points: Sequence[SweepPoint], adaptive: config.AdaptiveConf | None = None
) -> str:
    """The same points under the same name are the same sweep, on any machine.

    An adaptive one is also known by how it chooses; not by when it stops, so that it can go on.
    """
    rule = (adaptive.objective, adaptive.start, adaptive.per_round) if adaptive else ()
    return identity((name, *sorted(point.point_id for point in points), *rule))


def run(composed: Sequence[Composed]) -> tuple[SweepResult, str]:
    """One sweep from its composed configurations; ValueError before anything is spent.

    And what the tracker has not got of it, for a person; empty where it has all.
    """
    jobs = [Job(conf=specs.conf_from(c.config), about=c.about) for c in composed]
    points, conf = points_of(jobs), jobs[0].conf  # what is read off it is equal in all of them
    plan = build.make_plan(conf, points)
    tracker = build.make_tracker(conf, multirun.all_of(composed))
    ledger, stop = build.make_ledger(conf, tracker), Stop()
    console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
    opening = build.opening(conf, sweep_id(conf.sweep.name, points, conf.sweep.adaptive), points)
    if opening.note:
        console.print(opening.note, markup=False, highlight=False, soft_wrap=True)
    ledger.open(opening.sweep_id, conf.sweep.name, points)
    status = "incomplete"
    try:
        confs = [job.conf for job in jobs]
        costs = costs_of(confs, points, lambda: earlier_of(confs, points))
        executor = build.make_executor(confs, costs=costs, stop=stop)
        with listening(stop):
            if conf.validation is not None:
                settings = build.cluster_settings(conf)
                told = partial(console.print, soft_wrap=True, highlight=False)
                desk = make_desk(conf, opening.sweep_id, points, tracker, settings, told=told)
                plan = staged(conf, points, desk)
            result = run_sweep(points, ledger, executor, ConsoleProgress(console), plan, stop)
        show(result, tracker, Path(conf.output), console)
        if conf.validation is not None and isinstance(plan, StagedPlan):
            report = report_of(plan.forecast, result.measurements, conf.validation, plan.trouble)
            show_validation(report, result.measurements, tracker, Path(conf.output), console)
        console.print(f"compare runs: {tracker.address}", soft_wrap=True, highlight=False)
        status = "failed" if result.failed else "incomplete" if result.stopped else "finished"
    finally:
        ledger.close(status)
    if ledger.damaged:
        print(f"moesd-dist: warning: {ledger.damaged} lines of the journal were damaged and skipped: their points are in the tracker, or were measured again", file=sys.stderr)  # fmt: skip
    return result, ledger.left_behind


def foretell(composed: Sequence[Composed]) -> None:
    """Prints what `run` would do, and starts nothing."""
    jobs = [Job(conf=specs.conf_from(c.config), about=c.about) for c in composed]
    points, conf = points_of(jobs), jobs[0].conf
    build.make_plan(conf, points)  # refuses a pool that nothing can choose from
    console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
    opening = build.opening(conf, sweep_id(conf.sweep.name, points, conf.sweep.adaptive), points)
    if opening.note:
        console.print(opening.note, markup=False, highlight=False, soft_wrap=True)
    seen = outlook([job.conf for job in jobs], points, opening.sweep_id)
    show_outlook(seen, console, budget_hours=conf.budget_hours)


def show(result: SweepResult, tracker: Tracker, folder: Path, console: Console) -> None:
    """Table, verdict, pictures and curves: printed, saved beside the run, and logged.

    Neither a full disk nor a tracker that is away takes anything back that was measured.
    """
    table, sentences = sweep_table(result.outcomes), verdict(result.outcomes)
    sentences += [result.ending] if result.ending else []
    console.print(table)
    if shared := exchange_table(result.outcomes):
        console.print(shared)
    for sentence in sentences:
        console.print(sentence, markup=False, highlight=False)
    try:
        saved = save(result, table, sentences, folder)
    except OSError as error:
        console.print(f"the report is not saved in {folder}: {error.strerror}", soft_wrap=True, highlight=False)  # fmt: skip
        saved = []
    for path in saved:
        console.print(f"saved {path}", soft_wrap=True, highlight=False)
    try:
        for path in saved:
            tracker.log_file(path)
        tracker.log_curves(summary_curves(result.measurements))
    except TrackerUnavailable as outage:
        console.print(f"report and curves are not in the tracker: {outage}", soft_wrap=True, highlight=False)  # fmt: skip


def save(result: SweepResult, table: Table, sentences: Sequence[str], folder: Path) -> list[Path]:
    """The files that were written: the report, what happened on the way, and pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    text, measured = folder / "report.txt", result.measurements
    with text.open("w", encoding="utf-8") as file:
        plain = Console(file=file, width=140)
        plain.print(table)
        if shared := exchange_table(result.outcomes):
            plain.print(shared)
        plain.print("\n".join(sentences), markup=False, highlight=False)
    files = [text]
    if result.notes:
        files.append(folder / "events.txt")
        files[-1].write_text("".join(f"{note}\n" for note in result.notes), encoding="utf-8")
    pictures = [
        sweep_figure(measured, folder / "speedup.png"),
        experts_figure(measured, folder / "experts.png"),
        ranks_figure(measured, folder / "ranks.png"),
        scale_figure(measured, folder / "scale.png"),
    ]
    return [*files, *(picture for picture in pictures if picture)]


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def hydra_main(composed: DictConfig | Sequence[Composed]) -> None:
    jobs = [Composed(config=composed)] if isinstance(composed, DictConfig) else composed
    # Caught in here: Hydra would print a line of its own for an exception that leaves the job.
    with errors_as_one_line():
        if jobs[0].config.plan:
            foretell(jobs)
            return
        result, left_behind = run(jobs)
    behind = f"; {left_behind}" if left_behind else ""
    if result.failed:
        names = "; ".join(f"{name(f.point)}: {f.reason}" for f in result.failed)
        fail(f"{len(result.failed)} points failed: {names}{behind}", POINTS_FAILED)
    if result.stopped:
        fail(f"{result.ending}; the same command continues where it stopped{behind}", INTERRUPTED)
    if left_behind:
        fail(left_behind, NOT_TRACKED)


def main() -> None:
    """The console script."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come up as exceptions instead of a printed trace
    config.register()
    gc.set_threshold(_COLLECT_FROM, 20, 20)  # a large sweep read back is all live objects
    sys.argv[1:] = multirun.overrides_first(sys.argv[1:])
    with errors_as_one_line():
        hydra_main()


if __name__ == "__main__":
    main()
