"""An outage of the tracker delays, never loses; what is written twice counts once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from moesd_dist.ports import TrackerUnavailable
from moesd_dist.records import Failed, Infeasible, Measurement, Outcome, Repeat, SweepPoint
from moesd_dist.records.driver import Driver
from moesd_dist.sweep.journal import Journal
from moesd_dist.sweep.ledger import Ledger
from moesd_dist.tracking.memory import MemoryTracker

MakePoint = Callable[..., SweepPoint]


class Store(MemoryTracker):
    """A tracker with outages that loses replies too, and remembers every write that went through."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.reply_lost = 0  # of the next so many writes
        self.bug: Exception | None = None
        self.writes: list[str] = []
        self.readings = 0
        self.gate = threading.Event()
        self.gate.set()

    @property
    def run_id(self) -> str:
        return f"sweep of store {id(self)}"

    def finished(self) -> Mapping[str, Measurement | Infeasible]:
        self._answer()
        self.readings += 1
        return super().finished()

    def record(self, outcome: Outcome, metrics: Mapping[str, float]) -> None:
        self.gate.wait(10)
        self._answer()
        known = outcome.point.point_id in super().finished()
        super().record(outcome, metrics)
        if not known:
            self.writes.append(outcome.point.point_id)
        if self.reply_lost:
            self.reply_lost -= 1
            raise TrackerUnavailable("the connection was reset")

    def withdraw(self, point_id: str, why: str) -> None:
        self._answer()
        super().withdraw(point_id, why)

    def close(self, status: str) -> None:
        self._answer()
        super().close(status)

    def lose(self, point_ids: Sequence[str]) -> None:
        """As a backup from before they were recorded has it."""
        for point_id in point_ids:
            self._finished[self.sweep_id].pop(point_id, None)
            self._withdrawn[self.sweep_id].discard(point_id)

    def _answer(self) -> None:
        if self.bug:
            raise self.bug
        if self.down:
            raise TrackerUnavailable("nobody answers")


class SharedStore(Store):
    """One that says who had it open before."""

    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver()
        self.last_driver: Driver | None = None
        self.renewed = 0
        self.taken_over = False
        self.ended: list[Driver | None] = []

    def open(self, sweep_id, name, points, ended=None):  # type: ignore[no-untyped-def]
        super().open(sweep_id, name, points)
        self.ended.append(ended)

    def close(self, status: str) -> None:
        super().close(status)
        self.last_driver = self.driver

    def renew(self) -> None:
        self._answer()
        if self.taken_over:
            raise ValueError("another driver has taken this one over")
        self.renewed += 1


@pytest.fixture
def outcomes(base: MakePoint) -> list[Infeasible]:
    return [Infeasible(point=base(batch_size=b), reason="no room") for b in range(1, 6)]


def opened(store: Store, folder: Path, patience_s: float = 0.0) -> Ledger:
    ledger = Ledger(store, Journal(folder), patience_s=patience_s)
    ledger.open("abc", "a sweep", [])
    return ledger


def measurement(point: SweepPoint) -> Measurement:
    repeat = Repeat(
        seconds=1.0,
        rounds=1,
        tokens=1,
        drafted=0,
        accepted=0,
        sequence_rounds=1,
        draft_s=0.0,
        target_s=1.0,
        reject_s=0.0,
        tokens_per_forward=1,
        median_target_s=1.0,
        median_draft_s=0.0,
    )
    return Measurement(point=point, repeats=(repeat,) * 3, baseline=(repeat,) * 3)


def ids(outcomes: list[Infeasible]) -> list[str]:
    return [outcome.point.point_id for outcome in outcomes]


def test_what_is_recorded_reaches_the_tracker_in_order(
    tmp_path: Path, outcomes: list[Infeasible]
) -> None:
    store = Store()
    ledger = opened(store, tmp_path)
    ledger.record(outcomes[:2])
    ledger.record(outcomes[2:])
    ledger.settle()
    assert store.writes == ids(outcomes)
    ledger.close("finished")
    assert (store.status, ledger.left_behind) == ("finished", "")


def test_the_driver_does_not_wait_for_the_tracker(
    tmp_path: Path, outcomes: list[Infeasible]
) -> None:
    store = Store()
    ledger = opened(store, tmp_path)
    store.gate.clear()
    ledger.record(outcomes)
    assert store.writes == []
    store.gate.set()
    ledger.settle()
    assert store.writes == ids(outcomes)
    ledger.close("finished")


def test_an_outage_delays_and_loses_nothing(tmp_path: Path, outcomes: list[Infeasible]) -> None:
    store = Store()
    ledger = opened(store, tmp_path, patience_s=20)
    ledger.record(outcomes[:1])
    store.down = True
    ledger.record(outcomes[1:])
    threading.Timer(0.5, lambda: setattr(store, "down", False)).start()
    ledger.settle()
    assert sorted(store.writes) == sorted(ids(outcomes))
    ledger.close("finished")
    assert store.status == "finished"


def test_a_tracker_that_stays_away_is_told_and_caught_up_with_by_the_next_driver(
    tmp_path: Path, outcomes: list[Infeasible]
) -> None:
    store = Store()
    ledger = opened(store, tmp_path)
    store.down = True
    ledger.record(outcomes)
    start = time.monotonic()
    ledger.settle()
    assert time.monotonic() - start < 10
    ledger.close("finished")  # no error: nothing is wrong with the sweep
    assert "5 points are safe in the journal" in ledger.left_behind
    assert "nobody answers; the same command writes them" in ledger.left_behind
    store.down = False
    again = opened(store, tmp_path)
    assert dict(again.finished()) == dict(zip(ids(outcomes), outcomes, strict=True))
    again.settle()
    again.close("finished")
    assert store.writes == ids(outcomes)
    assert (store.status, again.left_behind) == ("finished", "")


def test_an_interrupt_ends_the_wait_for_a_tracker_and_loses_nothing(
    tmp_path: Path, outcomes: list[Infeasible]
) -> None:
    store = Store()
    ledger = opened(store, tmp_path, patience_s=60)
    store.down = True
    ledger.record(outcomes)
    threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
    start = time.monotonic()
    ledger.settle()
    assert time.monotonic() - start < 30
    ledger.close("finished")
    assert "5 points are safe in the journal" in ledger.left_behind


def test_a_lost_reply_leaves_one_record(tmp_path: Path, outcomes: list[Infeasible]) -> None:
    store = Store()
    store.reply_lost = 2
    ledger = opened(store, tmp_path, patience_s=20)
    ledger.record(outcomes)
    ledger.settle()
    ledger.close("finished")
    assert store.writes == ids(outcomes)


def test_an_error_that_is_no_outage_is_told_once_and_ends_nothing_before_the_end(
    tmp_path: Path, outcomes: list[Infeasible]
) -> None:
    store = Store()
    ledger = opened(store, tmp_path)
    assert ledger.trouble() == ""
    store.bug = KeyError("a slip in the tracker")
    ledger.record(outcomes[:1])
    told = [text for _ in range(50) if (text := ledger.trouble() or time.sleep(0.05))]
    (text,) = told
    assert "1 points are safe in the journal" in text
    assert "KeyError: 'a slip in the tracker'; the same command writes them" in text
    ledger.record(outcomes[1:])
    assert set(ledger.finished()) == set(ids(outcomes))
    with pytest.raises(KeyError, match="a slip"):
        ledger.settle()
    store.bug = None
    ledger.close("incomplete")
    again = opened(store, tmp_path)
    again.settle()
    again.close("finished")
    assert store.writes == ids(outcomes)


def test_a_tracker_that_is_away_at_the_start_is_one_line_before_anything_is_spent(
    tmp_path: Path,
) -> None:
    store = Store()
    store.down = True
    with pytest.raises(ValueError, match=r"nobody answers.*tracking\.uri") as caught:
        opened(store, tmp_path)
    assert "\n" not in str(caught.value)
    store.down = False
    opened(store, tmp_path).close("finished")  # the journal's lock was given back


def test_a_withdrawn_point_is_measured_again_and_counts_once(
    tmp_path: Path, base: MakePoint
) -> None:
    first, second = (Infeasible(point=base(), reason=reason) for reason in ("first", "second"))
    point_id = first.point.point_id
    store = Store()
    ledger = opened(store, tmp_path)
    ledger.record([first])
    ledger.withdraw({point_id: "a drift"})
    ledger.close("incomplete")  # killed before it was measured again
    ledger = opened(store, tmp_path)
    assert ledger.finished() == {}
    ledger.record([second, second])
    ledger.settle()
    ledger.close("finished")
    assert store.finished() == {point_id: second}
    assert store.withdrawals == [(point_id, "a drift")]
    assert opened(store, tmp_path).finished() == {point_id: second}


def test_a_failed_point_is_not_finished_and_may_be_recorded_again(
    tmp_path: Path, base: MakePoint
) -> None:
    failed = Failed(point=base(), reason="broke")
    store = Store()
    for _ in range(2):
        ledger = opened(store, tmp_path)
        assert ledger.finished() == {}
        ledger.record([failed])
        ledger.settle()
        ledger.close("failed")
    assert store.outcomes == [failed, failed]


def test_points_that_another_machine_finished_count(
    tmp_path: Path, outcomes: list[Infeasible]
) -> None:
    store = Store()
    for place, found in (("here", outcomes[:3]), ("there", outcomes[2:])):
        ledger = opened(store, tmp_path / place)
        ledger.record(found)
        ledger.settle()
        ledger.close("incomplete")
    assert store.writes == ids(outcomes)
    assert set(opened(store, tmp_path / "here").finished()) == set(ids(outcomes))


def test_a_lost_mark_costs_a_look_and_no_second_record(
    tmp_path: Path, outcomes: list[Infeasible]
) -> None:
    store = Store()
    ledger = opened(store, tmp_path)
    ledger.record(outcomes)
    ledger.settle()
    ledger.close("finished")
    path = tmp_path / "abc.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b'"tracked"' not in line))
    ledger = opened(store, tmp_path)
    ledger.settle()
    ledger.close("finished")
    assert store.writes == ids(outcomes)


def test_another_store_is_given_all_that_was_measured(
    tmp_path: Path, outcomes: list[Infeasible]
) -> None:
    ledger = opened(Store(), tmp_path)
    ledger.record(outcomes)
    ledger.settle()
    ledger.close("finished")
    other = Store()
    ledger = opened(other, tmp_path)
    assert set(ledger.finished()) == set(ids(outcomes))
    ledger.settle()
    ledger.close("finished")
    assert other.writes == ids(outcomes)


def run_whole(store: SharedStore, folder: Path, outcomes: Sequence[Outcome]) -> None:
    """A driver that measures these and ends in order."""
    store.driver = Driver()
    ledger = Ledger(store, Journal(folder, store.driver))
    ledger.open("abc", "a sweep", [])
    ledger.record(outcomes)
    ledger.settle()
    ledger.close("finished")


def test_a_driver_that_was_alone_does_not_read_the_tracker_again(
    tmp_path: Path, outcomes: list[Infeasible]
) -> None:
    store = SharedStore()
    run_whole(store, tmp_path, outcomes)
    readings = store.readings
    assert len(opened(store, tmp_path).finished()) == 5
    assert store.readings == readings


def test_a_journal_that_was_deleted_or_damaged_beside_its_lock_costs_a_look_and_no_point(
    tmp_path: Path, outcomes: list[Infeasible]
) -> None:
    store = SharedStore()
    run_whole(store, tmp_path, outcomes)
    path = tmp_path / "abc.jsonl"
    for left in (path.read_bytes().replace(b"no room", b"no roof", 1), None):
        if left is None:
            path.unlink()
        else:
            path.write_bytes(left)
        ledger = opened(store, tmp_path)
        assert set(ledger.finished()) == set(ids(outcomes))
        ledger.settle()
        ledger.close("finished")
        store.last_driver = store.driver = Driver()
    assert store.writes == ids(outcomes)


def test_what_the_tracker_has_lost_is_written_again(
    tmp_path: Path, outcomes: list[Infeasible]
) -> None:
    store = SharedStore()
    run_whole(store, tmp_path, outcomes)
    store.last_driver = None  # of an older backup
    store.lose(ids(outcomes)[2:])
    ledger = opened(store, tmp_path)
    assert set(ledger.finished()) == set(ids(outcomes))
    ledger.settle()
    ledger.close("finished")
    assert set(store.finished()) == set(ids(outcomes))
    assert store.writes == [*ids(outcomes), *ids(outcomes)[2:]]


def test_what_was_taken_back_elsewhere_stays_so(tmp_path: Path, outcomes: list[Infeasible]) -> None:
    store = SharedStore()
    run_whole(store, tmp_path, outcomes)
    store.last_driver = None
    store.withdraw(ids(outcomes)[0], "a drift")
    store.withdraw(ids(outcomes)[1], "a drift")
    store.record(replace(outcomes[1], reason="measured elsewhere"), {})
    ledger = opened(store, tmp_path)
    finished = ledger.finished()
    assert set(finished) == set(ids(outcomes)[1:])
    assert finished[ids(outcomes)[1]] == replace(outcomes[1], reason="measured elsewhere")
    ledger.settle()
    ledger.close("finished")
    assert set(store.finished()) == set(ids(outcomes)[1:])


@pytest.mark.parametrize("again", [True, False], ids=["measured again", "not yet measured again"])
def test_a_withdrawal_that_the_tracker_has_lost_is_said_again(
    tmp_path: Path, outcomes: list[Infeasible], again: bool
) -> None:
    first, second = outcomes[0], replace(outcomes[0], reason="second")
    store = Store()
    ledger = opened(store, tmp_path)
    ledger.record([first])
    ledger.withdraw({ids(outcomes)[0]: "a drift"})
    ledger.record([second] * again)
    ledger.settle()
    ledger.close("finished")
    store.lose(ids(outcomes)[:1])
    store.record(first, {})  # as it was before
    ledger = opened(store, tmp_path)
    assert list(ledger.finished().values()) == [second] * again
    ledger.settle()
    ledger.close("finished")
    assert list(store.finished().values()) == [second] * again


def test_a_lost_mark_of_a_withdrawal_does_not_take_the_new_outcome_away(
    tmp_path: Path, outcomes: list[Infeasible]
) -> None:
    first, second = outcomes[0], replace(outcomes[0], reason="second")
    store = Store()
    ledger = opened(store, tmp_path)
    for step in (
        lambda: ledger.record([first]),
        lambda: ledger.withdraw({ids(outcomes)[0]: "a drift"}),
        lambda: ledger.record([second]),
    ):
        step()
        ledger.settle()
    ledger.close("finished")
    path = tmp_path / "abc.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b'"words":[1]' not in line))
    ledger = opened(store, tmp_path)
    ledger.settle()
    ledger.close("finished")
    assert list(store.finished().values()) == [second]


@pytest.mark.parametrize("with_journal", [True, False], ids=["journal", "no journal"])
def test_a_point_that_did_not_fit_and_is_measured_later_counts_once(
    tmp_path: Path, base: MakePoint, with_journal: bool
) -> None:
    measured = measurement(base())
    store = Store()
    ledger = Ledger(store, Journal(tmp_path) if with_journal else None)
    ledger.open("abc", "a sweep", [])
    ledger.record([Infeasible(point=base(), reason="no room")])
    ledger.record([measured])
    ledger.settle()
    assert list(ledger.finished().values()) == [measured]
    ledger.close("finished")
    assert store.finished() == {measured.point.point_id: measured}
    assert store.withdrawals == [(measured.point.point_id, "it was measured later")]


def test_a_driver_that_was_taken_over_ends_when_the_journal_has_what_it_measured(
    tmp_path: Path, outcomes: list[Infeasible]
) -> None:
    store = SharedStore()
    ledger = opened(store, tmp_path)
    store.taken_over = True
    ledger.record(outcomes[:1])
    while not ledger.trouble():
        time.sleep(0.05)
    with pytest.raises(ValueError, match="taken this one over"):
        ledger.record(outcomes[1:])
    ledger.close("incomplete")
    assert store.writes == []
    store.taken_over = False
    assert len(opened(store, tmp_path).finished()) == 5


def test_expert_loads_are_written_and_not_remembered(tmp_path: Path, base: MakePoint) -> None:
    light = measurement(base())
    repeat = replace(light.repeats[0], expert_load=((12345,) * 128,) * 48)
    heavy = replace(light, repeats=(repeat,) * 3)
    store = Store()
    ledger = opened(store, tmp_path)
    store.down = True
    ledger.record([heavy])
    assert list(ledger.finished().values()) == [light]
    ledger.close("incomplete")
    store.down = False
    ledger = opened(store, tmp_path)
    assert list(ledger.finished().values()) == [light]
    ledger.settle()
    ledger.close("finished")
    assert list(store.finished().values()) == [heavy]


def test_only_a_driver_of_this_machine_is_known_to_have_ended(tmp_path: Path) -> None:
    store = SharedStore()
    drivers = [Driver(), Driver(host="elsewhere")]
    for driver in [*drivers, Driver()]:
        ledger = Ledger(store, Journal(tmp_path, driver))
        ledger.open("abc", "a sweep", [])
        ledger.close("incomplete")
    assert store.ended == [None, drivers[0], None]


def test_without_a_journal_everything_is_written_through(outcomes: list[Infeasible]) -> None:
    store = Store()
    ledger = Ledger(store)
    ledger.open("abc", "a sweep", [])
    ledger.record(outcomes)
    assert store.writes == ids(outcomes)
    ledger.withdraw({ids(outcomes)[0]: "a drift"})
    assert set(ledger.finished()) == set(ids(outcomes)[1:])
    ledger.close("finished")
    assert ledger.left_behind == ""
