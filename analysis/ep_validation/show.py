"""The verdict of a validation: printed, saved beside the run, and logged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from analysis.ep_validation.comparison import Comparison, compare, tolerances
from analysis.ep_validation.curves import error_curves, verdict_curves
from analysis.ep_validation.figure import validation_figure
from analysis.ep_validation.tables import as_csv, point_table, verdict_table
from analysis.ep_validation.verdict import Verdict, sentences, verdicts
from analysis.heading import flagged
from moesd_dist.config import ValidationConf
from moesd_dist.ports import Tracker, TrackerUnavailable
from moesd_dist.records import Measurement
from moesd_dist.records.forecast import Forecast

_WIDTH = 160  # of the saved text: with both values of each quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What there is to say; without a forecast only why there is none."""

    comparisons: list[Comparison]
    verdicts: list[Verdict]
    sentences: list[str]


def report_of(
    forecast: Forecast | None, measured: Sequence[Measurement], conf: ValidationConf, trouble: str
) -> Report:
    """Flags of the measurements are cautions here: a busy machine is no evidence against a forecast."""
    comparisons = compare(forecast, measured, tolerances(conf)) if forecast else []
    found = verdicts(comparisons)
    said = sentences(forecast, found, trouble)
    cautions = [f"Flagged: {text}." for text in flagged(measured)] if found else []
    return Report(comparisons=comparisons, verdicts=found, sentences=[*cautions, *said])


def show_validation(
    report: Report,
    measured: Sequence[Measurement],
    tracker: Tracker,
    folder: Path,
    console: Console,
) -> None:
    """A full disk or a tracker that is away takes nothing back that was measured."""
    _print(report, console)
    try:
        saved = save_validation(report, measured, folder)
    except OSError as error:
        console.print(f"the verdict is not saved in {folder}: {error.strerror}", soft_wrap=True, highlight=False)  # fmt: skip
        saved = []
    for path in saved:
        console.print(f"saved {path}", soft_wrap=True, highlight=False)
    try:
        for path in saved:
            tracker.log_file(path)
        tracker.log_curves(error_curves(report.comparisons) | verdict_curves(report.verdicts))
    except TrackerUnavailable as outage:
        console.print(f"the verdict is not in the tracker: {outage}", soft_wrap=True, highlight=False)  # fmt: skip


def save_validation(report: Report, measured: Sequence[Measurement], folder: Path) -> list[Path]:
    """The files that were written: text, numbers, and a picture where there is anything to draw."""
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "ep_validation.txt"
    with text.open("w", encoding="utf-8") as file:
        _print(report, Console(file=file, width=_WIDTH))
    if not report.comparisons:
        return [text]
    numbers = folder / "ep_validation.csv"
    numbers.write_text(as_csv(report.comparisons), encoding="utf-8")
    picture = validation_figure(
        report.comparisons,
        report.verdicts,
        measured,
        folder / "ep_validation.png",
        heading=" ".join(report.sentences[: -len(report.verdicts)]).rstrip("."),
    )
    return [text, numbers, *([picture] if picture else [])]


def _print(report: Report, console: Console) -> None:
    if report.comparisons:
        console.print(point_table(report.comparisons, errors_only=console.width < _WIDTH))
        console.print(verdict_table(report.verdicts))
    for sentence in report.sentences:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
