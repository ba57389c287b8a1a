"""Finished points of earlier sweeps, read back from MLflow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from moesd_dist.records import Measurement
from moesd_dist.records.serial import measurement_from_plain
from moesd_dist.tracking import location
from moesd_dist.tracking.mlflow import FINISHED_TAG
from moesd_dist.tracking.mlflow_runs import children, connect
from moesd_dist.tracking.packing import unpack


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRun:
    """A sweep as it lies in MLflow, with its finished measurements, without expert loads."""

    name: str
    sweep_id: str
    run_id: str
    measured: tuple[Measurement, ...]
    command: str = ""  # that made it


def load_sweep(uri: str, experiment: str, sweep: str) -> list[Measurement]:
    """All finished measurements of the newest sweep of that name or id, without expert loads.

    ValueError if the store, the experiment or the sweep is not there; it names those that are.
    """
    return list(load_run(uri, experiment, sweep).measured)


def load_run(uri: str, experiment: str, sweep: str) -> SweepRun:
    """The same with what the sweep is called and found by."""
    client = connect(location.check_writable(uri))
    parent = _parent(client, uri, experiment, sweep)
    runs = children(client, parent.info.experiment_id, parent.info.run_id)
    outcomes = [unpack(r.data.tags) for r in runs if r.data.tags.get(FINISHED_TAG) == "true"]
    measured = [outcome for outcome in outcomes if isinstance(outcome, Measurement)]
    measured.sort(key=lambda m: (m.point.top_k or 0, m.point.batch_size, m.point.gamma))
    return SweepRun(
        name=str(parent.info.run_name),
        sweep_id=parent.data.tags["moesd.sweep_id"],
        run_id=str(parent.info.run_id),
        measured=tuple(measured),
        command=parent.data.tags.get("moesd.command", ""),
    )


def load_whole(uri: str, experiment: str, sweep: str) -> Iterator[Measurement]:
    """The same measurements with all that was recorded, expert loads too: megabytes each, so one
    at a time and in no order. ValueError as `load_sweep`, and for a run that lost its record.
    """
    client = connect(location.check_writable(uri))
    parent = _parent(client, uri, experiment, sweep)
    for run in children(client, parent.info.experiment_id, parent.info.run_id):
        tags = run.data.tags
        if tags.get(FINISHED_TAG) == "true" and tags.get("moesd.outcome") == "measured":
            yield _whole(client, run)


def _whole(client: MlflowClient, run: Run) -> Measurement:
    try:
        with TemporaryDirectory() as folder:
            path = client.download_artifacts(run.info.run_id, "measurement.json", folder)
            return measurement_from_plain(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, MlflowException, ValueError) as error:
        raise ValueError(
            f"a point's whole record is its artifact measurement.json; run {run.info.run_id} "
            f"({run.info.run_name}) has none that can be read: {error}; measure the sweep again"
        ) from error


def _parent(client: MlflowClient, uri: str, experiment: str, sweep: str) -> Run:
    found = client.get_experiment_by_name(experiment)
    if found is None:
        names = ", ".join(e.name for e in client.search_experiments())
        raise ValueError(f"no experiment {experiment!r} in {uri}; there are {names}")
    parents = client.search_runs(
        [found.experiment_id],
        "tags.`moesd.kind` = 'sweep'",
        order_by=["attributes.start_time DESC"],
    )
    matching = [p for p in parents if sweep in (p.info.run_name, p.data.tags["moesd.sweep_id"])]
    if not matching:
        names = ", ".join(sorted({str(p.info.run_name) for p in parents}))
        raise ValueError(f"no sweep {sweep!r} in experiment {experiment}; there are {names}")
    return matching[0]
