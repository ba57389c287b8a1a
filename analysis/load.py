"""Finished points of earlier sweeps, read back from MLflow."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run

from moesd_dist.records import Measurement
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
