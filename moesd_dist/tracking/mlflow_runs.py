"""Finds, creates and fills MLflow runs; knows the client, but nothing of sweeps in progress."""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from collections.abc import Iterator, Mapping
from itertools import count

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from sqlalchemy import event
from sqlalchemy.engine import Engine

_METRICS_A_BATCH = 1000
_RUNS_A_PAGE = 250  # read within a request's time by a busy server too


def connect(tracking_uri: str) -> MlflowClient:
    """Creates the tables of a fresh database, so it belongs in the driver."""
    # One line per migration, dozens of them; and a trace for every try while the disk is full.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    client = MlflowClient(tracking_uri=tracking_uri)
    try:
        client.search_experiments(max_results=1)
    except MlflowException as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"tracking_uri holds what this MLflow reads; it does not: {reason}; use another one"
        ) from error
    return client


def quick_commits() -> None:
    """Databases in files are opened from now on so that a commit does not wait for the disk.

    With write-ahead logging, which belongs to the file, a power cut then costs the last commits and
    harms nothing else; they are in the journal.
    """

    @event.listens_for(Engine, "connect")
    def _relax(connection: object, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            if mode == "wal":
                connection.execute("PRAGMA synchronous=NORMAL")


def ensure_experiment(client: MlflowClient, name: str, artifact_location: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        found = _created(client, name, artifact_location)
    if found.lifecycle_stage != "active":
        raise ValueError(
            f"an experiment is active to be written; {name!r} is deleted; "
            f"`mlflow experiments restore -x {found.experiment_id}`, or use another name"
        )
    return str(found.experiment_id)


def _created(client: MlflowClient, name: str, artifact_location: str | None) -> Experiment:
    try:
        client.create_experiment(name, artifact_location=artifact_location)
    except MlflowException as error:  # another driver was quicker
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    return client.get_experiment_by_name(name)


def find_sweep(client: MlflowClient, experiment_id: str, sweep_id: str) -> Run | None:
    """The oldest, should two drivers have created one each."""
    query = f"tags.`moesd.kind` = 'sweep' and tags.`moesd.sweep_id` = '{sweep_id}'"
    order = ["attributes.start_time ASC"]
    found = client.search_runs([experiment_id], query, max_results=1, order_by=order)
    return found[0] if found else None


def children(client: MlflowClient, experiment_id: str, parent_id: str) -> Iterator[Run]:
    query, token = f"tags.`mlflow.parentRunId` = '{parent_id}'", None
    while True:
        page = client.search_runs(
            [experiment_id], query, max_results=_RUNS_A_PAGE, page_token=token
        )
        yield from page
        if not (token := page.token):
            return


def fill(
    client: MlflowClient,
    run_id: str,
    params: Mapping[str, str],
    metrics: Mapping[str, float],
    last: Mapping[str, str] | None = None,
) -> None:
    """One batch; metrics that are no finite number are named in a tag instead.

    MLflow writes the tags of a batch after its params and metrics: `last` is there when all is.
    """
    dropped = ", ".join(name for name, value in metrics.items() if not math.isfinite(value))
    tags = ({"moesd.dropped_metrics": dropped} if dropped else {}) | dict(last or {})
    client.log_batch(
        run_id,
        metrics=_metrics({(n, 0): v for n, v in metrics.items() if math.isfinite(v)}),
        params=[Param(name, value) for name, value in params.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )


def log_curve(client: MlflowClient, run_id: str, name: str, curve: Mapping[int, float]) -> None:
    """Adds what is new. Points cannot be taken back, so a revised curve gets a name of its own."""
    curve = {step: value for step, value in curve.items() if math.isfinite(value)}
    for revision in count(1):
        key = name if revision == 1 else f"{name}.revision_{revision}"
        drawn = {m.step: m.value for m in client.get_metric_history(run_id, key)}
        if all(curve.get(step, value) == value for step, value in drawn.items()):
            break
    new = _metrics({(key, step): value for step, value in curve.items() if step not in drawn})
    for start in range(0, len(new), _METRICS_A_BATCH):
        client.log_batch(run_id, metrics=new[start : start + _METRICS_A_BATCH])


def _metrics(values: Mapping[tuple[str, int], float]) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(name, float(value), now, step) for (name, step), value in values.items()]
