"""A whole validation on a cluster whose rule is known: the forecast has to find it, and the verdict
has to notice where the cluster is not as it was calibrated."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analysis.ep_validation.show import Report, report_of
from analysis.ep_validation.verdict import AFTER, Result
from moesd_dist.config import ValidationConf
from moesd_dist.records import SweepPoint
from moesd_dist.sweep.driver import SweepResult, run_sweep
from moesd_dist.sweep.grouping import Group
from moesd_dist.sweep.journal import Journal
from moesd_dist.sweep.ledger import Ledger
from moesd_dist.sweep.validation.desk import FileDesk
from moesd_dist.sweep.validation.predictor import Models, predictor_of
from moesd_dist.sweep.validation.shares import is_shared, with_single_ranks
from moesd_dist.sweep.validation.staged import StagedPlan
from moesd_dist.tracking.memory import MemoryTracker
from tests.sweep.validation.known_cluster import (
    COUNTS,
    DRAFT_COUNTS,
    LAYERS,
    DirectExecutor,
    KnownEngine,
    calibration,
    over,
    point,
    popularity,
)
from tests.sweep.validation.known_replicas import replicated

SD = [point(batch_size=b, gamma=g, layout=over(r)) for r in (2, 4) for b in (4, 16) for g in (1, 3)]
POINTS = with_single_ranks([q for p in SD for q in (p.baseline, p)])


class Run:
    """One run of the sweep in a folder; others may follow in the same."""

    def __init__(
        self, folder, engine: KnownEngine, before: Callable[[Group], None], points=POINTS
    ) -> None:
        self.points, self.tracker = points, MemoryTracker()
        self.desk = FileDesk(
            folder,
            "sweep",
            predictor=predictor_of(Models(target=COUNTS, draft=DRAFT_COUNTS), seed=0),
            whole=lambda ids: Journal.peek(folder, "sweep").whole(ids),
            calibrate=calibration,
            publish=self.tracker.log_file,
        )
        self.plan = StagedPlan(points, self.desk)
        self.executor = DirectExecutor(lambda _: engine, before)
        self.ledger = Ledger(self.tracker, Journal(folder))

    def result(self, progress) -> SweepResult:
        self.ledger.open("sweep", "validation", self.points)
        try:
            return run_sweep(self.points, self.ledger, self.executor, progress, self.plan)
        finally:
            self.ledger.close("finished")


def report(run: Run, result: SweepResult) -> Report:
    return report_of(run.plan.forecast, result.measurements, ValidationConf(), run.plan.trouble)


def results(of: Report) -> dict[str, Result]:
    return {v.name: v.result for v in of.verdicts}


class _Silent:
    def __getattr__(self, name):
        return lambda *_: None


SILENT = _Silent()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A validation that nobody disturbed, with the points that were measured before its forecast."""
    unwritten: list[SweepPoint] = []

    def before(group: Group) -> None:
        if is_shared(group.baseline) and not run.desk.forecast_path.exists():
            unwritten.append(group.baseline)

    run = Run(tmp_path_factory.mktemp("finished"), KnownEngine(), before)
    return run, run.result(SILENT), unwritten


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of its folder, to go on in."""
    run, _, _ = finished
    return Path(shutil.copytree(run.desk.forecast_path.parent, tmp_path / "copy"))


def test_the_rule_of_a_cluster_is_foretold_from_one_rank(finished):
    run, result, unwritten = finished
    found = report(run, result)
    assert unwritten == []
    assert set(results(found).values()) == {Result.HOLDS}, found.sentences
    assert [v.points for v in found.verdicts] == [12, 12, 12, 12, 8, 8]
    published = {path.name for _, path in run.tracker.files}
    assert published == {"sweep.calibration.json", "sweep.forecast.json"}
    assert AFTER not in " ".join(found.sentences)


def test_intervals_hold_most_of_what_is_measured(finished):
    run, result, _ = finished
    comparisons = report(run, result).comparisons
    assert sum(c.is_covered for c in comparisons) >= 0.8 * len(comparisons)


def test_replicas_are_foretold_as_ranks_record_them(tmp_path):
    """Physical experts of a rank, though one rank alone has shown logical ones only."""
    loads = np.stack([popularity(layer) for layer in range(LAYERS)])
    wide = [replicated(ranks, loads, tmp_path, redundant=6) for ranks in (2, 4)]
    sd = [point(batch_size=b, gamma=g, layout=at) for at in wide for b in (4, 16) for g in (1, 3)]
    points = with_single_ranks([q for p in sd for q in (p.baseline, p)])
    run = Run(tmp_path, KnownEngine(), lambda _: None, points)
    result = run.result(SILENT)
    found = report(run, result)
    assert set(results(found).values()) == {Result.HOLDS}, found.sentences
    assert [v.points for v in found.verdicts] == [12, 12, 12, 12, 8, 8]
    by_id = {m.point.point_id: m for m in result.measurements}
    for foretold in run.plan.forecast.points:
        physical = foretold.estimate("rank_activated_experts").value * foretold.ranks
        m = by_id[foretold.point_id]
        logical = sum(sum(r.experts_seen) / r.layer_forwards for r in m.repeats) / len(m.repeats)
        assert physical > 1.1 * logical


def test_links_that_are_dearer_than_calibrated_are_a_failed_verdict(finished, tmp_path):
    """And the forecast is the same: it sees nothing but one rank and the calibration."""
    run = Run(tmp_path, KnownEngine(dearer=2.0), lambda _: None)
    found = report(run, run.result(SILENT))
    assert results(found)["communication_s"] is Result.CONTRADICTED
    assert results(found)["rank_activated_experts"] is Result.HOLDS
    worst = next(v.worst for v in found.verdicts if v.name == "communication_s")
    assert worst.error == pytest.approx(-0.5, abs=0.02)
    ours, theirs = run.plan.forecast, finished[0].plan.forecast
    assert (ours.digest, ours.points) == (theirs.digest, theirs.points)


def test_a_second_run_measures_nothing_and_keeps_the_forecast(finished, folder):
    again = Run(folder, KnownEngine(), lambda _: None)
    result = again.result(SILENT)
    assert again.executor.measured == []
    assert again.plan.forecast == finished[0].plan.forecast
    assert results(report(again, result))["speedup"] is Result.HOLDS


def test_a_forecast_lost_after_its_points_were_measured_is_after_the_fact(folder):
    (folder / "sweep.forecast.json").unlink()
    again = Run(folder, KnownEngine(), lambda _: None)
    found = report(again, again.result(SILENT))
    assert any(AFTER in sentence for sentence in found.sentences)
    assert json.loads(again.desk.forecast_path.read_text())["after_the_fact"] is True


def test_cut_short_behind_the_forecast_the_next_run_measures_the_rest_and_keeps_it(tmp_path):
    def stop_at_shared(group: Group) -> None:
        if is_shared(group.baseline):
            raise KeyboardInterrupt

    first = Run(tmp_path, KnownEngine(), stop_at_shared)
    with pytest.raises(KeyboardInterrupt):
        first.result(SILENT)
    written = first.desk.forecast_path.read_bytes()
    again = Run(tmp_path, KnownEngine(), lambda _: None)
    again.result(SILENT)
    assert set(again.executor.measured) == {p.point_id for p in POINTS if is_shared(p)}
    assert again.desk.forecast_path.read_bytes() == written
    assert again.plan.forecast is not None
    assert not again.plan.forecast.after_the_fact
