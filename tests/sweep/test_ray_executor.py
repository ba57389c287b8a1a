"""What becomes of groups whose engine raises, will not start, drifts, or is told to stop; on real Ray."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from moesd_dist.records import (
    Failed,
    Infeasible,
    Measurement,
    ModelSource,
    ModelSpec,
    Protocol,
    Repeat,
    SdSpec,
    SweepPoint,
    WorkloadSpec,
)
from moesd_dist.sweep.cluster.crew import ClusterSettings
from moesd_dist.sweep.cluster.executor import RayExecutor
from moesd_dist.sweep.cluster.live import Terms
from moesd_dist.sweep.driver import run_sweep
from moesd_dist.sweep.grid import expand
from moesd_dist.sweep.ledger import Ledger
from moesd_dist.sweep.retries import RetryRule
from moesd_dist.sweep.schedule.needs import Needs
from moesd_dist.sweep.stopping import Stop
from moesd_dist.tracking.memory import MemoryTracker

RAISES_ONCE, RAISES, WRONG, SLOW_FROM, SLOW_TO = 5, 6, 7, 20, 23  # batch sizes at which it happens


class Moody:
    """Remembers in a folder what it has done, since engines come and go."""

    def __init__(self, key):
        self.folder = Path(json.loads(dict(key.engine_args)["folder"]))
        if key.threads == 2:
            raise RuntimeError("no such device")
        self.count("starts")

    def describe(self):
        return {"host": "here"}

    def infeasible(self, point):
        return Infeasible(point=point, reason="large") if point.batch_size > 90 else None

    def together(self, points):
        return True

    def warm_up(self, point):
        if point.batch_size == RAISES_ONCE and self.count("raised") == 1:
            raise RuntimeError("out of sorts")
        if point.batch_size == RAISES:
            raise RuntimeError("out of order")
        if point.batch_size == WRONG:
            raise ValueError("batch 7 is unlucky; use 8")

    def measure(self, point, repeat):
        time.sleep(0.01)
        tired = SLOW_FROM <= self.count("repeats") // 10 < SLOW_TO
        seconds = (2.0 if tired else 1.0) * (1.0 + 0.001 * repeat)
        return Repeat(
            seconds=seconds, rounds=5, tokens=5 * point.batch_size, drafted=0, accepted=0,
            accepted_per_position=(0,) * point.gamma, sequence_rounds=5, draft_s=0.0, target_s=1.0,
            reject_s=0.0, tokens_per_forward=point.gamma + 1, median_target_s=seconds / 5,
            median_draft_s=0.0,
        )  # fmt: skip

    def routing(self, point):
        return 0, 0

    def close(self):
        self.count("closed")

    def count(self, what):
        with (self.folder / what).open("a") as file:
            file.write(".")
            return file.tell()


class Noted:
    """A progress display that remembers the notes."""

    def __init__(self):
        self.notes = []

    def begin(self, total, done): ...
    def begin_round(self, planned): ...
    def advance(self, outcome): ...
    def end(self): ...

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(
        address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR",
        log_to_driver=False, _node_ip_address="127.0.0.1",
    )  # fmt: skip
    yield
    ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


class KeepsRay(RayExecutor):
    """Ends its engines; the cluster is every test's."""

    def close(self):
        self.release()


def base(folder, **changes):
    point = SweepPoint(
        engine="moody",
        target=ModelSpec(name="target", source=ModelSource.embedded),
        workload=WorkloadSpec(name="w", prompt_tokens_min=1, prompt_tokens_max=1, output_tokens=1),
        batch_size=1,
        gamma=0,
        sd=SdSpec(),
        protocol=Protocol(repeats=2, warmup_rounds=1),
        engine_args=(("folder", json.dumps(str(folder))),),
    )
    return replace(point, **changes)


def swept(points, *, stop=None, progress=None, **settings):
    """The result and the tracker; short waits."""
    rule = RetryRule(attempts=3, on_error=2, backoff_s=0.1)
    settings = ClusterSettings(rule=rule, close_s=5.0, **settings)
    executor = KeepsRay(Moody, lambda _: Terms(needs=Needs()), settings, stop=stop)
    tracker = MemoryTracker()
    ledger = Ledger(tracker)
    ledger.open("id", "moods", points)
    return run_sweep(points, ledger, executor, progress or Noted(), stop=stop), tracker


def marks(folder, what):
    return len((folder / what).read_text()) if (folder / what).exists() else 0


def test_a_group_whose_engine_raised_once_is_measured_in_a_fresh_engine(tmp_path):
    points = expand(base(tmp_path), {"batch_size": [4, RAISES_ONCE], "gamma": [0, 1]})
    result, tracker = swept(points)
    assert all(isinstance(o, Measurement) for o in result.outcomes)
    assert len(tracker.outcomes) == 4
    assert marks(tmp_path, "starts") == marks(tmp_path, "closed") == 2
    assert "attempt 1 of B=5 gamma=0, B=5 gamma=1" in result.notes[0]
    assert "RuntimeError: out of sorts; tried again in 0 s" in result.notes[0]


def test_one_that_raises_again_fails_with_both_attempts_and_the_rest_goes_on(tmp_path):
    points = expand(base(tmp_path), {"batch_size": [4, RAISES, WRONG], "gamma": [0]})
    result, _ = swept(points)
    measured, raised, wrong = result.outcomes
    assert isinstance(measured, Measurement)
    assert isinstance(raised, Failed)
    assert raised.reason.startswith("RuntimeError: out of order (2 attempts: 1. on ")
    assert isinstance(wrong, Failed)
    assert wrong.reason == "ValueError: batch 7 is unlucky; use 8"  # asked once


def test_an_engine_that_does_not_start_fails_its_points_and_no_others(tmp_path):
    points = expand(base(tmp_path), {"batch_size": [1, 2, 3, 95], "threads": [1, 2]})
    result, _ = swept(points)
    failed = [o for o in result.outcomes if isinstance(o, Failed)]
    assert {f.point.threads for f in failed} == {2}
    assert len(failed) == 4
    assert all("RuntimeError: no such device" in f.reason for f in failed)
    assert sum(isinstance(o, Infeasible) for o in result.outcomes) == 1


def test_a_stop_lets_what_runs_end_and_leaves_the_rest(tmp_path):
    stop = Stop()

    class Asks(Noted):
        def advance(self, outcome):
            if not stop:
                stop.ask("SIGINT")

    points = expand(base(tmp_path), {"batch_size": list(range(10, 20)), "gamma": [0]})
    result, tracker = swept(points, stop=stop, progress=Asks())
    assert result.stopped
    assert result.ending == f"stopped by SIGINT with {10 - len(tracker.outcomes)} points left"
    assert 1 <= len(tracker.outcomes) <= 2
    assert marks(tmp_path, "closed") == 1


def test_points_of_a_node_that_drifted_are_measured_again(tmp_path):
    """About two thirds through, the node is half as fast for a while."""
    sizes = list(range(10, 60))
    points = expand(base(tmp_path), {"batch_size": sizes, "gamma": [0, 1]})
    progress = Noted()
    result, tracker = swept(points, progress=progress, sentinel_every=10)
    assert all(isinstance(o, Measurement) for o in result.outcomes)
    assert len(result.outcomes) == len(points) == 100
    assert tracker.withdrawals, progress.notes
    text = " ".join(progress.notes)
    assert "drifted to 2.00" in text
    assert "are measured again" in text
    slow = [m for m in result.measurements if m.repeats[0].seconds > 1.5]
    assert all("drift" in m.flags for m in slow)
    assert len(tracker.outcomes) == len(points) + len(tracker.withdrawals)
    assert set(tracker.finished()) == {p.point_id for p in points}
