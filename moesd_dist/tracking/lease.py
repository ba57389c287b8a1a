"""Keeps drivers of two machines off the same sweep: the parent run says who writes it, and since when."""

from __future__ import annotations

import time

from mlflow import MlflowClient
from mlflow.entities import Run, RunTag

from moesd_dist.records.driver import Driver, driver_from

DRIVER_TAG = "moesd.driver"
HEARTBEAT_TAG = "moesd.heartbeat"  # seconds since the epoch
_CLAIM_TAG = "moesd.claim"  # who is about to
_GIVEN_BACK = "0"
LEASE_S = 90.0  # without a heartbeat, the driver counts as gone
_MOMENT_S = 0.3  # for another driver that claims at the same time to be seen


def holder(run: Run) -> Driver | None:
    """Who wrote the sweep last, whether or not it still does."""
    return driver_from(run.data.tags.get(DRIVER_TAG, ""))


def given_back(run: Run) -> bool:
    """Whether who wrote it last came to its end, so that nothing of it was lost on the way."""
    return bool(run.data.tags.get(HEARTBEAT_TAG) == _GIVEN_BACK)


def check_free(run: Run, own: Driver, ended: Driver | None) -> None:
    """ValueError if another driver writes the sweep now; `ended` is one that certainly does not."""
    other = holder(run)
    silent_s = time.time() - float(run.data.tags.get(HEARTBEAT_TAG, "0"))
    if other is None or other in (own, ended) or other.gone or silent_s >= LEASE_S:
        return
    raise ValueError(
        f"one driver at a time writes a sweep; process {other.pid} on {other.host} writes this one "
        f"(run {run.info.run_id}, last seen {max(silent_s, 0):.0f} s ago); wait for it, or end it "
        f"and try again after {LEASE_S:.0f} s, or give this one another sweep.name"
    )


def claim(client: MlflowClient, run_id: str, own: Driver, ended: Driver | None) -> None:
    """ValueError if another driver writes the sweep; of two that claim at once the last one wins."""
    check_free(client.get_run(run_id), own, ended)  # as it is now: creating it may have taken long
    _write(client, run_id, {_CLAIM_TAG: str(own)})
    time.sleep(_MOMENT_S)
    run = client.get_run(run_id)
    check_free(run, own, ended)  # its claim may be older, and ours just slow
    if run.data.tags.get(_CLAIM_TAG) != str(own):
        raise ValueError(
            "one driver at a time writes a sweep; another one opens this one at the same moment "
            f"(run {run_id}); wait for it, or use another sweep.name"
        )
    _write(client, run_id, {DRIVER_TAG: str(own), HEARTBEAT_TAG: f"{time.time():.0f}"})
    check_own(client.get_run(run_id), own)


def renew(client: MlflowClient, run_id: str, own: Driver) -> None:
    """ValueError if another driver has taken the sweep over meanwhile."""
    check_own(client.get_run(run_id), own)
    _write(client, run_id, {HEARTBEAT_TAG: f"{time.time():.0f}"})


def is_held(client: MlflowClient, run_id: str, own: Driver) -> bool:
    """Whether nobody has taken the sweep over."""
    return holder(client.get_run(run_id)) == own


def give_back(client: MlflowClient, run_id: str) -> None:
    """The last write of a driver: a store that has it has all the others."""
    _write(client, run_id, {HEARTBEAT_TAG: _GIVEN_BACK})


def check_own(run: Run, own: Driver) -> None:
    other = holder(run)
    if other is not None and other != own:
        raise ValueError(
            f"one driver at a time writes a sweep; process {other.pid} on {other.host} has taken "
            f"this one over (run {run.info.run_id}); what was measured here is in the journal, and "
            "the same command adds it later"
        )


def _write(client: MlflowClient, run_id: str, tags: dict[str, str]) -> None:
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
