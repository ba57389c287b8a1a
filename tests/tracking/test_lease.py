"""One driver at a time writes a sweep, wherever it runs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from dataclasses import replace
from threading import Thread

import pytest
from mlflow import MlflowClient

from moesd_dist.records.driver import Driver, driver_from
from moesd_dist.tracking import lease
from moesd_dist.tracking.lease import DRIVER_TAG, HEARTBEAT_TAG
from moesd_dist.tracking.mlflow import MlflowTracker
from moesd_dist.tracking.provenance import Provenance

ELSEWHERE = Driver(host="another-host", pid=77)


def tracker(uri: str, provenance: Provenance, driver: Driver) -> MlflowTracker:
    return MlflowTracker(uri, "moesd", provenance, "", driver=driver)


def test_a_sweep_that_a_driver_elsewhere_writes_is_refused(
    uri: str, provenance: Provenance
) -> None:
    first = tracker(uri, provenance, ELSEWHERE)
    first.open("abc", "a sweep", [])
    with pytest.raises(ValueError, match=r"process 77 on another-host .* s ago.*sweep\.name") as no:
        tracker(uri, provenance, Driver()).open("abc", "a sweep", [])
    assert "\n" not in str(no.value)
    tracker(uri, provenance, Driver()).open("another sweep", "a sweep", [])
    first.close("incomplete")
    tracker(uri, provenance, Driver()).open("abc", "a sweep", [])


@pytest.mark.parametrize(
    ("silent_s", "own"),
    [
        pytest.param(100, {}, id="no heartbeat for longer than the lease"),
        pytest.param(5, {"host": platform.node(), "pid": 2**22 + 1}, id="dead, on this machine"),
        pytest.param(5, {"host": platform.node(), "pid": os.getpid()}, id="this very process"),
    ],
)
def test_a_driver_that_is_gone_is_no_hindrance(
    uri: str, provenance: Provenance, silent_s: float, own: dict[str, object]
) -> None:
    holder = replace(ELSEWHERE, **own)
    first = tracker(uri, provenance, holder)
    first.open("abc", "a sweep", [])
    client = MlflowClient(tracking_uri=uri)
    client.set_tag(first.run_id, HEARTBEAT_TAG, f"{time.time() - silent_s:.0f}")
    second = tracker(uri, provenance, Driver())
    second.open("abc", "a sweep", [])
    assert second.last_driver is None  # it did not come to its end: its last writes may be lost


def test_a_driver_that_the_journal_knows_to_have_ended_is_no_hindrance(
    uri: str, provenance: Provenance
) -> None:
    tracker(uri, provenance, ELSEWHERE).open("abc", "a sweep", [])
    tracker(uri, provenance, Driver()).open("abc", "a sweep", [], ended=ELSEWHERE)


def test_a_driver_that_was_taken_over_stops_at_its_next_heartbeat(
    uri: str, provenance: Provenance
) -> None:
    first = tracker(uri, provenance, Driver())
    first.open("abc", "a sweep", [])
    first.renew()
    client = MlflowClient(tracking_uri=uri)
    assert driver_from(client.get_run(first.run_id).data.tags[DRIVER_TAG]) == first.driver
    tracker(uri, provenance, ELSEWHERE).open("abc", "a sweep", [], ended=first.driver)
    with pytest.raises(ValueError, match=r"process 77 on another-host has taken"):
        first.renew()


def test_the_last_driver_is_the_one_that_closed_the_sweep(uri: str, provenance: Provenance) -> None:
    first, second = (tracker(uri, provenance, Driver()) for _ in range(2))
    first.open("abc", "a sweep", [])
    first.close("incomplete")
    second.open("abc", "a sweep", [])
    assert (first.last_driver, second.last_driver) == (None, first.driver)


def test_a_driver_that_was_taken_over_does_not_close_the_sweep(
    uri: str, provenance: Provenance
) -> None:
    first = tracker(uri, provenance, Driver())
    first.open("abc", "a sweep", [])
    second = tracker(uri, provenance, ELSEWHERE)
    second.open("abc", "a sweep", [], ended=first.driver)
    first.close("failed")
    run = MlflowClient(tracking_uri=uri).get_run(second.run_id)
    assert (run.info.status, lease.given_back(run)) == ("RUNNING", False)


def test_of_two_that_open_at_once_one_stops(uri: str, provenance: Provenance) -> None:
    drivers = [replace(ELSEWHERE, key=key, host=key) for key in ("one", "two")]
    trackers = [tracker(uri, provenance, driver) for driver in drivers]
    ends: list[str] = []

    def run(opening: MlflowTracker) -> None:
        try:
            opening.open("abc", "a sweep", [])
            ends.append("opened")
        except ValueError as error:
            ends.append(str(error)[:32])

    threads = [Thread(target=run, args=(opening,)) for opening in trackers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["one driver at a time writes a sw", "opened"]


def test_a_running_process_of_this_machine_is_a_hindrance(uri: str, provenance: Provenance) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        tracker(uri, provenance, Driver(pid=other.pid)).open("abc", "a sweep", [])
        with pytest.raises(ValueError, match=f"process {other.pid} on"):
            tracker(uri, provenance, Driver()).open("abc", "a sweep", [])
        other.kill()
    tracker(uri, provenance, Driver()).open("abc", "a sweep", [])
