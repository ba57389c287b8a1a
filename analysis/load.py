"""Finished points of earlier sweeps, read back from MLflow."""

from __future__ import annotations

from moesd_dist.records import Measurement
from moesd_dist.tracking import location
from moesd_dist.tracking.mlflow import FINISHED_TAG
from moesd_dist.tracking.mlflow_runs import children, connect
from moesd_dist.tracking.packing import unpack


def load_sweep(uri: str, experiment: str, sweep: str) -> list[Measurement]:
    """All finished measurements of the newest sweep of that name or id, without expert loads.

    ValueError if the store, the experiment or the sweep is not there; it names those that are.
    """
    client = connect(location.check_writable(uri))
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
    runs = children(client, found.experiment_id, matching[0].info.run_id)
    outcomes = [unpack(r.data.tags) for r in runs if r.data.tags.get(FINISHED_TAG) == "true"]
    measured = [outcome for outcome in outcomes if isinstance(outcome, Measurement)]
    return sorted(measured, key=lambda m: (m.point.top_k or 0, m.point.batch_size, m.point.gamma))
