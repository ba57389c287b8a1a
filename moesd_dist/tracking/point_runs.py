"""Writes a point's run: what it is and what came out, `finished` last of all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.entities import Run

from moesd_dist.records import Failed, Measurement, Outcome
from moesd_dist.records.serial import kind_of, to_plain
from moesd_dist.tracking.labels import filled, outcome_tags, point_params, run_name
from moesd_dist.tracking.mlflow_runs import fill
from moesd_dist.tracking.packing import pack

FINISHED_TAG = "moesd.finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """Whose children the runs are."""

    experiment_id: str
    run_id: str
    git_commit: str = ""


def write(
    client: MlflowClient, parent: Parent, outcome: Outcome, metrics: Mapping[str, float]
) -> None:
    """The last thing written is the finished tag: before it, this is no result."""
    tags = {
        "mlflow.parentRunId": parent.run_id,
        "moesd.kind": "point",
        FINISHED_TAG: "false",
        "moesd.git_commit": parent.git_commit,
    }
    tags = filled(tags) | outcome_tags(outcome) | pack(outcome)
    name = run_name(outcome.point)
    run = client.create_run(parent.experiment_id, tags=tags, run_name=name)
    failed = isinstance(outcome, Failed)
    _keep(client, run, f"{_artifact_name(outcome)}.json", _json(outcome))
    if isinstance(outcome, Failed) and outcome.log:  # as a file too, to be read in the UI
        _keep(client, run, "failed.log", outcome.log)
    # While the run is small: the store reads all of it for this.
    client.set_terminated(run.info.run_id, "FAILED" if failed else "FINISHED")
    finished = {} if failed else {FINISHED_TAG: "true"}
    fill(client, run.info.run_id, point_params(outcome.point), metrics, finished)


def was_finished(client: MlflowClient, parent: Parent, point_id: str) -> bool:
    """Whether a write that seemed to break had been done; what was half-written is marked killed."""
    query = (
        f"tags.`mlflow.parentRunId` = '{parent.run_id}' and tags.`moesd.point_id` = '{point_id}'"
    )
    runs = client.search_runs([parent.experiment_id], query)
    for run in runs:
        if run.data.tags.get(FINISHED_TAG) == "false":
            mark_killed(client, run)
    return any(run.data.tags.get(FINISHED_TAG) == "true" for run in runs)


def mark_killed(client: MlflowClient, run: Run) -> None:
    if run.info.status not in ("FAILED", "KILLED"):
        client.set_terminated(run.info.run_id, "KILLED")


def _json(outcome: Outcome) -> str:
    return json.dumps(to_plain(outcome), separators=(",", ":"))


def _artifact_name(outcome: Outcome) -> str:
    return "measurement" if isinstance(outcome, Measurement) else kind_of(outcome)


def _keep(client: MlflowClient, run: Run, name: str, text: str) -> None:
    """As an artifact. In a folder of this machine it is a plain file: the client would ask the
    store where that folder is, for every run."""
    place = urlsplit(run.info.artifact_uri)
    if place.scheme != "file" or place.netloc:
        client.log_text(run.info.run_id, text, name)
        return
    folder = Path(unquote(place.path))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
