"""A forecast beside measurements: errors, verdicts, tables, picture, curves."""

from __future__ import annotations

import csv
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from analysis.ep_validation.comparison import Comparison, compare, tolerances
from analysis.ep_validation.curves import error_curves, verdict_curves
from analysis.ep_validation.show import report_of, save_validation, show_validation
from analysis.ep_validation.tables import as_csv
from analysis.ep_validation.verdict import Result, verdicts
from moesd_dist.config import ValidationConf
from moesd_dist.ports import TrackerUnavailable
from moesd_dist.records import Interval, Measurement, SweepPoint
from moesd_dist.records.forecast import Estimate, Forecast, PointForecast
from moesd_dist.sweep.statistics import metrics
from moesd_dist.tracking.memory import MemoryTracker
from tests.sweep.validation.known_cluster import KnownEngine, over, point

PLACE = PointForecast(point_id="x", ranks=2, nodes=1, batch_size=8, gamma=3, estimates=())


def comparison(
    predicted: float,
    measured: float = 1.0,
    *,
    interval: tuple[float, float] | None = None,
    tolerance: float = 0.1,
    name: str = "speedup",
) -> Comparison:
    return Comparison(
        name=name,
        place=PLACE,
        predicted=Estimate(name=name, value=predicted, low=0.9 * predicted, high=1.1 * predicted),
        measured=measured,
        interval=Interval(low=interval[0], high=interval[1]) if interval else None,
        tolerance=tolerance,
    )


@pytest.fixture(scope="module")
def measured():
    """Two points over two ranks, measured by a rule."""
    engine = KnownEngine()
    points = [point(batch_size=b, gamma=3, layout=over(2)) for b in (4, 16)]
    return [
        Measurement(
            point=p,
            repeats=tuple(engine.measure(p, r) for r in range(3)),
            baseline=tuple(engine.measure(p.baseline, r) for r in range(3)),
            num_experts=16,
            top_k=2,
        )
        for p in points
    ]


def foretold(of: SweepPoint, values: dict[str, float]) -> PointForecast:
    return PointForecast(
        point_id=of.point_id,
        ranks=of.layout.dp_size,
        nodes=1,
        batch_size=of.batch_size,
        gamma=of.gamma,
        estimates=tuple(
            Estimate(name=n, value=v, low=0.95 * v, high=1.05 * v) for n, v in values.items()
        ),
    )


def forecast(measured, factor: float = 1.0, **changes) -> Forecast:
    """As if every metric had been foretold as measured, times a factor."""
    names = tolerances(ValidationConf())
    points = tuple(
        foretold(m.point, {n: factor * metrics(m)[n] for n in names if n in metrics(m)})
        for m in measured
    )
    given = {"made": "now", "digest": "abc", "after_the_fact": False, "points": points}
    return Forecast(**(given | changes))


@pytest.mark.parametrize(
    ("given", "result"),
    [
        pytest.param([comparison(1.05), comparison(0.91)], Result.HOLDS, id="all within"),
        pytest.param([comparison(1.05), comparison(1.3)], Result.CONTRADICTED, id="one beyond"),
        pytest.param(
            [comparison(1.3, interval=(0.8, 1.25))],
            Result.OPEN,
            id="beyond, but noise reaches back",
        ),
        pytest.param(
            [comparison(1.3, interval=(0.95, 1.05))], Result.CONTRADICTED, id="beyond all noise"
        ),
        pytest.param(
            [comparison(1.3, interval=(0.5, 2.0)), comparison(1.3)],
            Result.CONTRADICTED,
            id="noise of one point excuses no other",
        ),
    ],
)
def test_a_quantity_holds_is_contradicted_or_stays_open(given, result):
    (found,) = verdicts(given)
    assert found.result is result


def test_errors_are_of_the_measured_value():
    found = comparison(1.5, 1.2, interval=(1.1, 1.3))
    assert found.error == pytest.approx(0.25)
    assert found.least_error == pytest.approx(1.5 / 1.3 - 1)
    assert found.noise == pytest.approx((1.3 / 1.1) ** 0.5 - 1)
    assert comparison(1.2, 1.3, interval=(1.1, 1.4)).least_error == 0.0


def test_a_verdict_counts_points_noise_and_cover():
    given = [
        comparison(1.05, interval=(0.8, 1.3)),
        comparison(0.7, interval=(0.99, 1.01)),
        comparison(1.0),
    ]
    (found,) = verdicts(given)
    assert (found.points, found.within, found.noisy, found.covered) == (3, 2, 1, 2)
    assert found.worst is given[1]
    assert found.median_error == pytest.approx(0.05)


def test_every_metric_that_was_foretold_and_measured_is_compared(measured):
    found = compare(forecast(measured), measured, tolerances(ValidationConf()))
    assert [c.name for c in found] == 2 * list(tolerances(ValidationConf()))
    assert all(c.error == pytest.approx(0.0) for c in found)
    rounding = 1 + 1e-9  # a count that is the same in all repeats
    assert all(c.interval.low <= c.measured * rounding for c in found)
    assert all(c.measured <= c.interval.high * rounding for c in found)
    assert compare(forecast(measured), measured[:1], {"speedup": 0.1})[0].place.batch_size == 4


def test_intervals_are_those_of_the_metric_itself(measured):
    found = compare(forecast(measured), measured, {"speedup": 0.1})[0]
    assert found.interval.low == pytest.approx(metrics(measured[0])["speedup_low"])
    assert found.interval.high == pytest.approx(metrics(measured[0])["speedup_high"])


def text_of(report) -> str:
    return "\n".join(report.sentences)


def test_the_verdict_is_said_in_sentences(measured):
    right = report_of(forecast(measured), measured, ValidationConf(), "")
    assert text_of(right).count("PASS") == 6
    wrong = report_of(forecast(measured, 1.5), measured, ValidationConf(), "")
    assert "FAIL speedup: 0 of 2 points within 10%, worst +50.0%" in text_of(wrong)
    late = report_of(forecast(measured, after_the_fact=True), measured, ValidationConf(), "")
    assert late.sentences[0].startswith("PREDICTED AFTER THE FACT")
    none = report_of(None, measured, ValidationConf(), "too few points")
    assert none.sentences == ["Nothing was foretold, so there is no verdict: too few points."]


def test_flags_of_the_measurements_come_first(measured):
    busy = [replace(m, flags=("foreign_load",)) for m in measured]
    said = report_of(forecast(busy), busy, ValidationConf(), "").sentences
    assert said[0] == "Flagged: foreign_load at 2 of 2 points."


def test_everything_is_printed_saved_and_logged(measured, tmp_path):
    tracker, out = MemoryTracker(), Console(file=StringIO(), width=120)
    report = report_of(forecast(measured, 1.2), measured, ValidationConf(), "")
    show_validation(report, measured, tracker, tmp_path, out)
    names = {path.name for _, path in tracker.files}
    assert names == {"ep_validation.txt", "ep_validation.csv", "ep_validation.png"}
    assert (tmp_path / "ep_validation.png").stat().st_size > 10_000
    printed, saved = out.file.getvalue(), (tmp_path / "ep_validation.txt").read_text()
    assert "+20.0%!" in printed
    assert " -> " in saved
    assert "FAIL target efficiency" in saved
    curve = tracker.curves["forecast_error_speedup_ep_2_gamma_3"]
    assert curve == {4: pytest.approx(0.2), 16: pytest.approx(0.2)}
    assert tracker.curves["forecast_within_speedup"] == {0: 0.0}


def test_numbers_are_saved_in_full(measured):
    report = report_of(forecast(measured), measured, ValidationConf(), "")
    rows = list(csv.DictReader(StringIO(as_csv(report.comparisons))))
    assert len(rows) == 12
    assert {row["quantity"] for row in rows} == set(tolerances(ValidationConf()))
    assert float(rows[0]["measured"]) == report.comparisons[0].measured


def test_without_comparisons_there_is_only_text(measured, tmp_path):
    report = report_of(None, measured, ValidationConf(), "why")
    assert [path.name for path in save_validation(report, measured, tmp_path)] == [
        "ep_validation.txt"
    ]
    assert error_curves(report.comparisons) | verdict_curves(report.verdicts) == {}


def test_a_tracker_that_is_away_takes_nothing_back(measured, tmp_path):
    class Away(MemoryTracker):
        def log_file(self, path, folder=""):
            raise TrackerUnavailable("it is away")

    out = Console(file=StringIO(), width=120)
    report = report_of(forecast(measured), measured, ValidationConf(), "")
    show_validation(report, measured, Away(), tmp_path, out)
    assert "the verdict is not in the tracker: it is away" in out.file.getvalue()
    assert (tmp_path / "ep_validation.csv").exists()
