"""The tracker in memory keeps the same promises as MLflow's."""

from __future__ import annotations

from moesd_dist.ports import Tracker
from moesd_dist.records import Failed, Infeasible
from moesd_dist.tracking.memory import MemoryTracker

from .conftest import MakeMeasurement, MakePoint, OpenTracker


def test_both_trackers_fit_the_port(open_tracker: OpenTracker) -> None:
    trackers: list[Tracker] = [MemoryTracker(), open_tracker()]
    assert all(tracker.address for tracker in trackers)


def test_a_repeated_point_is_kept_once(
    make_point: MakePoint, make_measurement: MakeMeasurement
) -> None:
    tracker = MemoryTracker()
    measurement = make_measurement(make_point())
    for speedup in (1.5, 1.6):
        tracker.open("abc", "a sweep", [measurement.point])
        tracker.record(measurement, {"speedup": speedup})
    assert tracker.outcomes == [measurement]
    assert tracker.metrics == {measurement.point.point_id: {"speedup": 1.5}}
    assert tracker.finished() == {measurement.point.point_id: measurement}


def test_infeasible_is_finished_and_failed_is_not(make_point: MakePoint) -> None:
    tracker = MemoryTracker()
    tracker.open("abc", "a sweep", [])
    tracker.record(Infeasible(point=make_point(1), reason="no room"), {})
    tracker.record(Failed(point=make_point(2), reason="broke"), {})
    assert list(tracker.finished()) == [make_point(1).point_id]


def test_a_withdrawn_point_is_named_until_it_is_recorded_again(
    open_tracker: OpenTracker, make_point: MakePoint, make_measurement: MakeMeasurement
) -> None:
    measurement, other = make_measurement(make_point(1)), make_measurement(make_point(2))
    point_id = measurement.point.point_id
    for tracker in (MemoryTracker(), open_tracker()):
        tracker.open("abc", "a sweep", [])
        tracker.record(measurement, {})
        tracker.record(other, {})
        assert tracker.withdrawn() == frozenset()
        tracker.withdraw(point_id, "a drift")
        tracker.open("abc", "a sweep", [])
        assert tracker.withdrawn() == {point_id}
        tracker.record(measurement, {})
        tracker.open("abc", "a sweep", [])
        assert (tracker.withdrawn(), len(tracker.finished())) == (frozenset(), 2)


def test_sweeps_are_kept_apart_by_id(make_point: MakePoint) -> None:
    tracker = MemoryTracker()
    tracker.open("one", "a sweep", [])
    tracker.record(Infeasible(point=make_point(1), reason="no room"), {})
    tracker.open("two", "another", [])
    assert tracker.finished() == {}
