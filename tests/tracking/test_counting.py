"""Of every point one run counts, whoever reads the sweep."""

from __future__ import annotations

import time
from dataclasses import replace

from mlflow import MlflowClient

from moesd_dist.records import Infeasible, Measurement, Outcome
from moesd_dist.tracking.counting import SECOND, WHY_TAG
from moesd_dist.tracking.mlflow import FINISHED_TAG, MlflowTracker
from moesd_dist.tracking.packing import without_expert_load
from moesd_dist.tracking.point_runs import write
from moesd_dist.tracking.reading import Store

from .conftest import MakeMeasurement, MakePoint, OpenTracker


def doubled(tracker: MlflowTracker, *outcomes: Outcome) -> None:
    """As several writes that nobody knew of would leave them, the oldest first."""
    for outcome in outcomes:
        write(tracker._client, tracker._parent, outcome, {})
        time.sleep(0.002)  # starts are told apart by milliseconds


def seconds(uri: str) -> list[str]:
    query = f"tags.`{WHY_TAG}` = '{SECOND}' and tags.`{FINISHED_TAG}` = 'withdrawn'"
    runs = MlflowClient(tracking_uri=uri).search_runs(["1"], query)
    return [run.data.tags["moesd.outcome"] for run in runs]


def test_a_measurement_counts_before_an_older_or_newer_infeasible(
    open_tracker: OpenTracker, make_point: MakePoint, make_measurement: MakeMeasurement, uri: str
) -> None:
    measurement = make_measurement(make_point())
    infeasible = Infeasible(point=measurement.point, reason="no room")
    doubled(open_tracker(), infeasible, measurement, infeasible)
    (read,) = Store(uri=uri, experiment="moesd").finished("abc").values()
    tracker = open_tracker()
    (known,) = tracker.finished().values()
    assert (type(read), type(known), tracker.withdrawn()) == (Measurement, Measurement, frozenset())
    assert seconds(uri) == ["infeasible", "infeasible"]


def test_of_two_measurements_the_newer_one_counts_and_the_other_is_marked(
    open_tracker: OpenTracker, make_point: MakePoint, make_measurement: MakeMeasurement, uri: str
) -> None:
    older = make_measurement(make_point())
    newer = replace(older, host="another-host")
    doubled(open_tracker(), older, newer)
    kept = {older.point.point_id: without_expert_load(newer)}
    assert Store(uri=uri, experiment="moesd").finished("abc") == kept
    assert open_tracker().finished() == kept
    assert seconds(uri) == ["measured"]
    assert open_tracker().finished() == kept


def test_what_is_trusted_is_not_recorded_again(
    open_tracker: OpenTracker, make_point: MakePoint, make_measurement: MakeMeasurement
) -> None:
    known, new = make_measurement(make_point(1)), make_measurement(make_point(2))
    tracker = open_tracker()
    tracker.trust({known.point.point_id: known})
    tracker.record(known, {})
    tracker.record(new, {})
    assert list(open_tracker().finished()) == [new.point.point_id]
