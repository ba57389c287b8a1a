"""What MLflow says at the end of a sweep in which something broke."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlflow import MlflowClient

FINISHED = "FINISHED"


def kept(uri: str, experiment: str, *, whole: bool = True) -> dict[str, str]:
    """By point id, what MLflow says of it: `FINISHED`, or why it failed. Nothing may be there twice.

    A write that an outage or a dead driver broke off leaves a run that is marked as killed. While
    one may still be going on, the sweep is not `whole`.
    """
    found: dict[str, str] = {}
    for run in _children(MlflowClient(tracking_uri=uri), experiment):
        tags, status = run.data.tags, run.info.status
        finished = tags["moesd.finished"] == "true"
        assert status == "FINISHED" or not finished, run
        if status == "RUNNING" and not whole:
            continue
        if status != "KILLED":
            assert status in ("FINISHED", "FAILED"), run
            assert tags["moesd.point_id"] not in found, f"twice: {run}"
            done = FINISHED if finished else tags.get("moesd.reason", "neither finished nor failed")
            found[tags["moesd.point_id"]] = done
    return found


def _children(client: MlflowClient, experiment: str) -> Iterator[Any]:
    known = client.get_experiment_by_name(experiment)
    token = None
    while True:
        page = client.search_runs(
            [known.experiment_id], "tags.`moesd.kind` = 'point'", page_token=token
        )
        yield from page
        if not (token := page.token):
            return
