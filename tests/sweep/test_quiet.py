"""A group waits for quiet, is flagged without it, or refuses to be measured."""

from __future__ import annotations

import pytest

from moesd_dist.records import Device, Failed, Measurement
from moesd_dist.records.neighbours import Neighbours
from moesd_dist.sweep.driver import InlineExecutor, run_sweep
from moesd_dist.sweep.grid import expand
from moesd_dist.sweep.grouping import groups
from moesd_dist.sweep.ledger import Ledger
from moesd_dist.sweep.pairing import LoadLimit, measure_group
from moesd_dist.sweep.quiet import until_quiet
from moesd_dist.tracking.memory import MemoryTracker

OTHER = "pid 4711 (python) holds 4096 MiB of GPU-5f3c"
CROWDED = Neighbours(on_gpu=(OTHER,))
ALONE = Neighbours()


class Street:
    """Neighbours who come and go, one entry a look; the last one stays."""

    def __init__(self, *seen: Neighbours) -> None:
        self.seen, self.looks = list(seen), 0
        self.asked: list[tuple[Device, float]] = []

    def __call__(self, device: Device, over_s: float) -> Neighbours:
        self.asked.append((device, over_s))
        self.looks += 1
        return self.seen[min(self.looks, len(self.seen)) - 1]


@pytest.fixture
def group(base):
    (found,) = groups(expand(base(device=Device.cuda), {"gamma": [1]}), finished=())
    return found


def test_a_quiet_machine_is_looked_at_once():
    street = Street(ALONE)
    assert until_quiet(street, Device.cuda, cores=0.5, patience_s=9.0) == ALONE
    assert street.asked == [(Device.cuda, 0.0)]


@pytest.mark.parametrize(
    "busy",
    [
        pytest.param(CROWDED, id="somebody on the GPU"),
        pytest.param(Neighbours(cores=0.9), id="load on the cores"),
    ],
)
def test_the_group_begins_when_the_others_have_gone(busy):
    street = Street(busy, busy, ALONE)
    assert until_quiet(street, Device.cpu, cores=0.5, patience_s=9.0, pause_s=0.01) == ALONE
    assert street.asked == [(Device.cpu, 1.0)] * 3


def test_patience_ends():
    street = Street(CROWDED)
    assert until_quiet(street, Device.cuda, cores=0.5, patience_s=0.1, pause_s=0.02) == CROWDED
    assert 2 <= street.looks <= 6


def test_without_patience_the_load_of_the_cores_is_not_awaited():
    street = Street(ALONE)
    until_quiet(street, Device.cpu, cores=0.5, patience_s=0.0)
    assert street.asked == [(Device.cpu, 0.0)]


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param((CROWDED,), id="all the time"),
        pytest.param((CROWDED, ALONE), id="at the beginning"),
        pytest.param((ALONE, CROWDED), id="at the end"),
    ],
)
def test_somebody_on_our_gpu_is_flagged_and_named(formula_engine, group, seen):
    outcomes = measure_group(formula_engine(), group, LoadLimit(look=Street(*seen)))
    assert [o.flags for o in outcomes] == [("foreign_gpu",)] * 2
    assert {o.machine["foreign_gpu"] for o in outcomes} == {OTHER}


def test_an_engine_alone_is_not_flagged(formula_engine, group):
    outcomes = measure_group(formula_engine(), group, LoadLimit(look=Street(ALONE)))
    assert [(o.flags, o.machine) for o in outcomes] == [((), {})] * 2


def test_a_crowded_gpu_is_refused_before_anything_is_spent(formula_engine, group):
    engine = formula_engine()
    outcomes = measure_group(engine, group, LoadLimit(refuse=True, look=Street(CROWDED)))
    assert all(isinstance(o, Failed) and OTHER in o.reason for o in outcomes)
    assert engine.log == []


def test_ranks_that_agreed_on_who_is_there_do_not_look_again(formula_engine, group):
    street = Street(ALONE)
    limit = LoadLimit(refuse=True, wait_s=9.0, look=street)
    outcomes = measure_group(formula_engine(), group, limit, before=CROWDED)
    assert all(isinstance(o, Failed) for o in outcomes)
    assert street.looks == 0


def test_who_came_meanwhile_is_refused_too(formula_engine, group):
    limit = LoadLimit(refuse=True, look=Street(ALONE, CROWDED))
    outcomes = measure_group(formula_engine(), group, limit)
    assert all(isinstance(o, Failed) and OTHER in o.reason for o in outcomes)


def test_facts_of_the_machine_are_kept_apart_from_versions(formula_engine, group):
    class Telling(formula_engine):
        def describe(self):
            return {**super().describe(), "machine.cpu_affinity": "0-1"}

    for outcome in measure_group(Telling(), group, LoadLimit()):
        assert isinstance(outcome, Measurement)
        assert outcome.machine == {"cpu_affinity": "0-1"}
        assert outcome.versions == {"torch": "0"}


def test_a_person_is_told_once_of_others_on_the_gpu(base, formula_engine, silent):
    class Listening(type(silent)):
        def __init__(self):
            self.heard = []

        def note(self, text):
            self.heard.append(text)

    points = expand(base(device=Device.cuda), {"batch_size": [1, 2, 4], "gamma": [1]})
    limit, progress, tracker = LoadLimit(look=Street(CROWDED)), Listening(), MemoryTracker()
    tracker.open("id", "name", points)
    executor = InlineExecutor(lambda _: formula_engine(), lambda _: limit)
    run_sweep(points, Ledger(tracker), executor, progress)
    (line,) = progress.heard
    assert OTHER in line
