"""Fits step times and MoESD's model to measured sweeps, and says how far held-out points are missed.

    python -m analysis.fit sweep=NAME
    python -m analysis.fit sweep=NAME calibration=FILE     # points of several ranks: their links, too

Writes fit.json (which engine.fit and analysis.recommend load), errors.csv, report.txt and pictures,
and logs them as one MLflow run. docs/fitting.md says what the numbers mean.
"""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.table import Table

from analysis.fitting.curves import curves_figure
from analysis.fitting.elsewhere import elsewhere
from analysis.fitting.log import log_fit
from analysis.fitting.points import samples
from analysis.fitting.results import FitResult, fit_sample
from analysis.fitting.save import save_fit
from analysis.fitting.scatter import scatter_figure
from analysis.fitting.settings import Each, FitConf
from analysis.fitting.steps_figure import steps_figure
from analysis.fitting.tables import (
    moesd_table,
    parameter_table,
    regime_table,
    speedup_table,
    step_table,
)
from analysis.fitting.verdict import fit_verdict
from analysis.heading import heading, labels
from analysis.settings import check_folder, hydra_program

_WIDTH = 132


def run(conf: FitConf) -> None:
    """One fit, or one for each of what they differ in; ValueError before anything is spent."""
    check_folder(conf.out)
    results = [fit_sample(sample, conf) for sample in samples(conf)]
    for result in results:
        folder = Path(
            conf.out, *([result.sample.name.replace(" ", "_")] if len(results) > 1 else [])
        )
        report(result, folder, conf)
    if conf.each in (Each.devices, Each.layouts):
        print("\n".join(elsewhere(results, conf.each)))


def report(result: FitResult, folder: Path, conf: FitConf) -> None:
    """Tables and verdict printed and saved, pictures drawn, everything logged."""
    folder.mkdir(parents=True, exist_ok=True)
    text = report_text(result)
    print(text, end="")
    page = folder / "report.txt"
    page.write_text(text, encoding="utf-8")
    files = [*save_fit(result, folder), page]
    files += [
        scatter_figure(result, folder / "held_out.png"),
        steps_figure(result, folder / "steps.png"),
        curves_figure(result, folder / "curves.png"),
    ]
    run_id = log_fit(result, conf, files)
    print(f"saved {folder}, MLflow run {run_id}\n")


def report_text(result: FitResult) -> str:
    """Errors, residuals and parameters as tables, then the verdict."""
    title = [*(f"*** {name} ***" for name in labels(result.sample.measured)), result.sample.name]
    tables = [speedup_table(result), step_table(result), regime_table(result)]
    tables += [parameter_table(result), *filter(None, [moesd_table(result)])]
    lines = [*filter(None, title), *heading(result.sample.measured), "", *map(_text, tables)]
    text = "\n".join([*lines, *fit_verdict(result)])
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _text(table: Table) -> str:
    file = StringIO()
    Console(file=file, width=_WIDTH).print(table)
    return file.getvalue()


def main() -> None:
    hydra_program("fit", FitConf, run)


if __name__ == "__main__":
    main()
