"""Every point that is put in comes out once, however often it has to be tried."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moesd_dist.records import Failed, Infeasible
from moesd_dist.sweep.grid import expand
from moesd_dist.sweep.grouping import engine_key, groups
from moesd_dist.sweep.retries import Attempt, RetryRule
from moesd_dist.sweep.schedule.queue import Queue
from moesd_dist.sweep.schedule.work import Work

LOST = Attempt(reason="its worker died", nodes=("a",), place="node A", log="signal 9")
RAISED = replace(LOST, lost=False)


class Clock:
    """Moves when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(base, clock):
    points = expand(base(), {"batch_size": [1, 8], "gamma": [0, 2]})
    works = [Work(group=g, key=engine_key(g), seconds=10.0) for g in groups(points, finished=())]
    return Queue(works, RetryRule(attempts=3, on_error=2, backoff_s=5.0), clock)


def take(queue):
    """Whatever waits, if it does."""
    (key,) = {work.key for work in queue.waiting} or {None}
    return queue.waiting.take(key) if key else None


def test_a_lost_work_waits_before_it_is_tried_again_and_elsewhere(queue, clock):
    work = take(queue)
    arrival = queue.tried([work], LOST)
    assert not arrival.outcomes
    assert (
        "attempt 1 of B=1 gamma=0, B=1 gamma=2 on node A failed: its worker died"
        in arrival.notes[0]
    )
    assert queue.wakes_in_s() == 5.0
    clock.now += 4.9
    queue.wake()
    assert len(queue.waiting) == 1
    clock.now += 0.2
    queue.wake()
    again = [w for w in queue.waiting if w.avoid]
    assert [(w.group, w.avoid, w.seconds) for w in again] == [(work.group, {"a"}, 10.0)]
    assert queue.tried_before(again[0])


def test_the_wait_doubles_and_the_third_loss_is_the_last(queue, clock):
    work = take(queue)
    waits = []
    for place in ("A", "B"):
        queue.tried([work], replace(LOST, place=f"node {place}"))
        waits.append(queue.wakes_in_s())
        clock.now += 60.0
        queue.wake()
        queue.waiting.remove(next(w for w in queue.waiting if w.avoid))
    assert waits == [5.0, 10.0]
    arrival = queue.tried([work], replace(LOST, reason="hung", place="node C"))
    assert [o.point for o in arrival.outcomes] == list(work.group.wanted)
    failed = arrival.outcomes[0]
    assert isinstance(failed, Failed)
    assert failed.reason.startswith("hung (3 attempts: 1. on node A: its worker died; 2. on node B")
    assert "== attempt 1 on node A: ==\nsignal 9" in failed.log


def test_an_engine_that_raises_is_asked_twice(queue, clock):
    work = take(queue)
    queue.tried([work], RAISED)
    clock.now += 60.0
    assert len(queue.tried([work], RAISED).outcomes) == 2


def test_what_was_asked_for_wrongly_is_not_asked_again(queue):
    arrival = queue.tried([take(queue)], replace(RAISED, reason="ValueError: batch 8 exceeds 4"))
    assert [o.reason for o in arrival.outcomes] == ["ValueError: batch 8 exceeds 4"] * 2


def test_of_a_group_only_what_failed_is_measured_again(queue, clock):
    work = take(queue)
    baseline, sd = work.group.wanted
    outcomes = [Infeasible(point=baseline, reason="large"), Failed(point=sd, reason="E: x")]
    arrival = queue.answered(work, outcomes, Attempt(reason="", nodes=("a",), place="node A"))
    assert arrival.outcomes == (outcomes[0],)
    clock.now += 60.0
    queue.wake()
    (again,) = [w for w in queue.waiting if w.avoid]
    assert again.group.wanted == (sd,)
    assert again.group.baseline == baseline
    assert again.seconds == 5.0


def test_an_engine_that_never_starts_fails_all_that_needs_it(queue):
    first = take(queue)
    queue.tried([first], LOST)
    arrival = queue.given_up(first.key, LOST)
    assert len(arrival.outcomes) == 4
    assert not queue


def test_nothing_is_left_after_it_was_cleared(queue):
    queue.tried([take(queue)], LOST)
    queue.clear()
    assert not queue
