"""The thread behind the journal asks whether the sweep is still its own before it writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from moesd_dist.ports import TrackerUnavailable
from moesd_dist.records import Infeasible, Outcome, SweepPoint
from moesd_dist.records.driver import Driver
from moesd_dist.sweep.backlog import Backlog
from moesd_dist.sweep.journal import Journal
from moesd_dist.tracking.memory import MemoryTracker

MakePoint = Callable[..., SweepPoint]


class Shared(MemoryTracker):
    """Tells what it was asked, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.down = False
        self.slip = False

    def open(self, sweep_id, name, points, ended=None):  # type: ignore[no-untyped-def]
        super().open(sweep_id, name, points)

    @property
    def last_driver(self) -> Driver | None:
        return None

    def renew(self) -> None:
        self._answer()
        self.asked.append("renew")

    def record(self, outcome: Outcome, metrics: Mapping[str, float]) -> None:
        self._answer()
        if self.slip:
            raise KeyError("a slip")
        super().record(outcome, metrics)
        self.asked.append("write")

    def _answer(self) -> None:
        if self.down:
            raise TrackerUnavailable("nobody answers")


@pytest.fixture
def outcomes(base: MakePoint) -> list[Infeasible]:
    return [Infeasible(point=base(batch_size=b), reason="no room") for b in range(1, 6)]


@pytest.fixture
def store() -> Shared:
    store = Shared()
    store.open("abc", "a sweep", [])
    return store


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path)
    journal.open("abc", "a sweep", 5)
    yield journal
    journal.close()


@pytest.fixture
def backlog(store: Shared, journal: Journal) -> Iterator[Backlog]:
    backlog = Backlog(store, journal)
    yield backlog
    backlog.stop()


def test_the_first_write_and_the_first_after_an_outage_ask_whose_the_sweep_is(
    store: Shared, journal: Journal, backlog: Backlog, outcomes: list[Infeasible]
) -> None:
    backlog.add(journal.record(outcomes[:2]))
    backlog.settle(5)
    assert store.asked == ["renew", "write", "write"]
    store.asked, store.down = [], True
    backlog.add(journal.record(outcomes[2:]))
    backlog.settle(0)
    store.down = False
    backlog.settle(5)
    assert store.asked == ["renew", "write", "write", "write"]


def test_patience_begins_with_the_wait_for_the_end(
    store: Shared, journal: Journal, backlog: Backlog, outcomes: list[Infeasible]
) -> None:
    backlog.add(journal.record(outcomes[:1]))
    backlog.settle(5)
    time.sleep(1.5)  # of measuring, in which there was nothing to write
    store.down = True
    backlog.add(journal.record(outcomes[1:]))
    start = time.monotonic()
    backlog.settle(1.5)
    assert time.monotonic() - start >= 1.5
    assert (backlog.left, backlog.reason) == (4, "nobody answers")


def test_after_a_slip_nothing_is_written_and_nothing_is_lost(
    store: Shared, journal: Journal, backlog: Backlog, outcomes: list[Infeasible]
) -> None:
    store.slip = True
    backlog.add(journal.record(outcomes[:1]))
    with pytest.raises(KeyError, match="a slip"):
        backlog.settle(5)
    store.slip = False
    backlog.add(journal.record(outcomes[1:]))
    backlog.check()  # no takeover: the sweep goes on
    with pytest.raises(KeyError, match="a slip"):
        backlog.settle(5)
    assert (backlog.left, backlog.broken) == (5, True)
    assert "write" not in store.asked
