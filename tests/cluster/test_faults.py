"""Workers, raylets and nodes die, engines hang or run out of memory: every point is kept once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from moesd_dist.records import Failed, Measurement
from tests.cluster.sweeps import Sweep, breaks, two_nodes

pytestmark = pytest.mark.cluster

DEADLINE_S = 3.0
NOTICE_S = 5.0  # at most, for a node that died
# What goes wrong is chosen by batch size.
KILLED, HANGS_ONCE, HANGS, RAISES_ONCE, RAISES, NO_MEMORY_ONCE, NO_MEMORY = range(2, 9)
FAULTS = {
    KILLED: "die once",
    HANGS_ONCE: "hang once",
    HANGS: "hang",
    RAISES_ONCE: "raise once",
    RAISES: "raise",
}


@pytest.fixture(scope="module")
def swept(here, tmp_path_factory, empty_database, memory_group) -> Sweep:
    """One sweep in which engines break in all the ways they can."""
    faults = FAULTS
    if memory_group is not None:
        faults = FAULTS | {NO_MEMORY_ONCE: f"{memory_group} once", NO_MEMORY: str(memory_group)}
    sweep = two_nodes(
        here,
        tmp_path_factory.mktemp("engines"),
        empty_database,
        batch_sizes=range(1, 11),
        faults=faults,
        deadline_s=DEADLINE_S,
    )
    sweep.run()
    return sweep


@pytest.fixture(scope="module")
def memory_group() -> Iterator[Path | None]:
    """A memory group of the kernel with room for 100 MiB; None where none can be made."""
    root, limit = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
    if not root.is_dir():
        root, limit = root.parent, "memory.max"
    group = root / f"moesd-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(100 << 20))
    except OSError:
        yield None
        return
    yield group
    group.rmdir()


def test_whatever_engines_do_every_point_is_kept_once(swept):
    swept.say("engines that break")
    swept.kept_once()


@pytest.mark.parametrize(
    ("batch_size", "fault", "within_s"),
    [
        pytest.param(KILLED, "worker SIGKILL", 1.0, id="killed"),
        pytest.param(HANGS_ONCE, "hung engine, once", DEADLINE_S + 2, id="hung"),
        pytest.param(RAISES_ONCE, "engine raised MemoryError, once", 1.0, id="raised"),
        pytest.param(NO_MEMORY_ONCE, "out of memory (kernel), once", 1.0, id="out of memory"),
    ],
)
def test_what_goes_wrong_once_is_measured_at_the_second_try(
    swept, memory_group, batch_size, fault, within_s
):
    if batch_size == NO_MEMORY_ONCE and memory_group is None:
        pytest.skip("memory groups of the kernel need root")
    noticed_s = swept.noticed_at_s(batch_size)
    print(f"\nFAULT {fault}: noticed after {noticed_s:.2f} s")
    assert all(isinstance(outcome, Measurement) for outcome in swept.of(batch_size).values())
    assert noticed_s < within_s


@pytest.mark.parametrize(
    ("batch_size", "attempts", "reason"),
    [
        pytest.param(HANGS, 3, "hung: no answer within its deadline of 3 s", id="hung"),
        pytest.param(RAISES, 2, "MemoryError: no room for the drafts", id="raised"),
        pytest.param(NO_MEMORY, 3, "worker died", id="out of memory"),
    ],
)
def test_what_goes_wrong_each_time_is_recorded_with_its_reason(
    swept, memory_group, batch_size, attempts, reason
):
    if batch_size == NO_MEMORY and memory_group is None:
        pytest.skip("memory groups of the kernel need root")
    failed = swept.of(batch_size)[1]
    assert isinstance(failed, Failed)
    assert reason in failed.reason
    assert f"({attempts} attempts: 1. on " in failed.reason


def test_a_point_that_the_engine_raises_on_does_not_take_its_baseline_along(swept):
    assert isinstance(swept.of(RAISES)[0], Measurement)


def test_a_killed_raylet_takes_its_node_along_and_the_sweep_goes_on(here, tmp_path, empty_database):
    def kill(sweep):
        node = here.node(sweep.wait_for(4)["node"])
        with breaks(sweep):
            here.kill_raylet(node)

    sweep = two_nodes(here, tmp_path, empty_database, batch_sizes=range(1, 13))
    sweep.run(kill)
    noticed_s = sweep.noticed_s("attempt 1 of")
    sweep.say("raylet SIGKILL", noticed_s)
    sweep.kept_once()
    assert noticed_s < NOTICE_S


def test_a_node_that_is_switched_off_is_done_without(here, tmp_path, empty_database):
    def switch_off(sweep):
        node = here.node(sweep.wait_for(4)["node"])
        with breaks(sweep):
            here.power_off(node)

    sweep = two_nodes(here, tmp_path, empty_database, batch_sizes=range(1, 13))
    sweep.run(switch_off)
    noticed_s = sweep.noticed_s("attempt 1 of")
    sweep.say("node power-off, its connections reset", noticed_s)
    sweep.kept_once()
    assert noticed_s < NOTICE_S
