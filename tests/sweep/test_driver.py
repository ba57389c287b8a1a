"""A sweep loses nothing, repeats nothing, and goes on when a point breaks."""

from __future__ import annotations

import pytest

from moesd_dist.records import Failed, Measurement
from moesd_dist.sweep.driver import InlineExecutor, run_sweep
from moesd_dist.sweep.grid import expand
from moesd_dist.sweep.ledger import Ledger
from moesd_dist.sweep.pairing import LoadLimit
from moesd_dist.tracking.memory import MemoryTracker


def sweep(points, tracker, engine, silent):
    executor = InlineExecutor(lambda _: engine, lambda _: LoadLimit())
    tracker.open("id", "name", points)
    return run_sweep(points, Ledger(tracker), executor, silent)


def test_every_point_comes_back_once_in_the_order_of_the_grid(base, formula_engine, silent):
    points = expand(base(), {"batch_size": [2, 1], "gamma": [1, 3]})
    result = sweep(points, MemoryTracker(), formula_engine(), silent)
    assert [o.point for o in result.outcomes] == points
    assert result.reused == 0


def test_a_second_run_measures_nothing(base, formula_engine, silent):
    points = expand(base(), {"batch_size": [1, 2], "gamma": [1]})
    tracker = MemoryTracker()
    first = sweep(points, tracker, formula_engine(), silent)
    engine = formula_engine()
    second = sweep(points, tracker, engine, silent)
    assert engine.log == []
    assert second.reused == 4
    assert [o.point for o in second.outcomes] == [o.point for o in first.outcomes]


def test_a_run_that_dies_continues_at_the_first_missing_group(base, formula_engine, silent):
    points = expand(base(), {"batch_size": [1, 2, 4], "gamma": [1]})
    tracker = MemoryTracker()

    class Dies(formula_engine):
        def measure(self, point, repeat):
            if point.batch_size == 2:
                raise KeyboardInterrupt
            return super().measure(point, repeat)

    with pytest.raises(KeyboardInterrupt):
        sweep(points, tracker, Dies(), silent)
    engine = formula_engine()
    result = sweep(points, tracker, engine, silent)
    assert {batch for batch, _, _ in engine.log} == {2, 4}
    assert result.reused == 2
    assert len(result.outcomes) == 6


def test_a_point_that_breaks_is_recorded_and_tried_again_next_time(base, formula_engine, silent):
    points = expand(base(), {"batch_size": [1, 2, 4], "gamma": [1]})
    tracker = MemoryTracker()
    broken = sweep(points, tracker, formula_engine(breaks_at=2), silent)
    assert [o.point.batch_size for o in broken.failed] == [2, 2]
    assert "on fire" in broken.failed[0].reason
    assert len(broken.measurements) == 4
    healed = sweep(points, tracker, formula_engine(), silent)
    assert not any(isinstance(o, Failed) for o in healed.outcomes)
    assert all(isinstance(o, Measurement) for o in healed.outcomes)


def test_an_engine_that_will_not_load_fails_its_points_and_is_tried_once(
    base, formula_engine, silent
):
    points = expand(base(), {"threads": [1, 2, 4], "batch_size": [1, 2], "gamma": [1]})
    tried = []

    def make(key):
        tried.append(key.threads)
        if key.threads == 2:
            raise ValueError("threads 2 is no number of threads; use 1")
        return formula_engine()

    tracker = MemoryTracker()
    tracker.open("id", "name", points)
    executor = InlineExecutor(make, lambda _: LoadLimit())
    result = run_sweep(points, Ledger(tracker), executor, silent)
    assert tried == [1, 2, 4]
    assert [o.point for o in result.outcomes] == points
    assert [o.point for o in result.failed] == [p for p in points if p.threads == 2]
    assert {o.reason for o in result.failed} == {
        "ValueError: threads 2 is no number of threads; use 1"
    }
    assert all("Traceback" in o.log for o in result.failed)
