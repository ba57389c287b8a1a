"""Keeps a sweep in MLflow: one parent run, and one child run per point."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from moesd_dist.records import Failed, Infeasible, Measurement, Outcome, SweepPoint
from moesd_dist.records.serial import kind_of, to_plain
from moesd_dist.tracking import location
from moesd_dist.tracking.labels import (
    filled,
    outcome_tags,
    point_params,
    provenance_tags,
    run_name,
    source,
    sweep_params,
)
from moesd_dist.tracking.mlflow_runs import (
    children,
    connect,
    ensure_experiment,
    fill,
    find_sweep,
    log_curve,
)
from moesd_dist.tracking.packing import pack, unpack, without_expert_load
from moesd_dist.tracking.provenance import Provenance
from moesd_dist.tracking.redact import redact

FINISHED_TAG = "moesd.finished"
OPENINGS_TAG = "moesd.openings"
_STATUS = {"finished": "FINISHED", "incomplete": "KILLED", "failed": "FAILED"}


class MlflowTracker:
    """Held by the driver alone; continues a sweep that an earlier driver left unfinished."""

    def __init__(
        self,
        tracking_uri: str,
        experiment: str,
        provenance: Provenance,
        resolved_config: str,
        artifact_location: str | None = None,
    ) -> None:
        self._uri = location.check_writable(tracking_uri)
        self._client = connect(self._uri)
        place = artifact_location or location.artifact_location(self._uri)
        self._experiment_id = ensure_experiment(self._client, experiment, place)
        self._provenance = provenance
        self._config = redact(resolved_config)
        self._open_run_id: str | None = None
        self._finished: dict[str, Measurement | Infeasible] = {}

    def open(self, sweep_id: str, name: str, points: Sequence[SweepPoint]) -> None:
        found = find_sweep(self._client, self._experiment_id, sweep_id)
        if found is None:
            self._open_run_id = self._create_sweep(sweep_id, name, points)
        else:
            self._open_run_id = found.info.run_id
            self._client.update_run(found.info.run_id, status="RUNNING")
        earlier = int(found.data.tags.get(OPENINGS_TAG, "0")) if found else 0
        self._log_provenance(openings=earlier + 1)
        self._finished = self._read_children()

    def finished(self) -> Mapping[str, Measurement | Infeasible]:
        """Without `expert_load`, which is in the artifact `measurement.json` only."""
        return dict(self._finished)

    def record(self, outcome: Outcome, metrics: Mapping[str, float]) -> None:
        """A point that is finished is not written again; one that failed is."""
        known = self._finished.get(outcome.point.point_id)
        if isinstance(known, Measurement) or (known and isinstance(outcome, Infeasible)):
            return
        run_id = self._create_child(outcome)
        fill(self._client, run_id, point_params(outcome.point), metrics)
        plain = json.dumps(to_plain(outcome), separators=(",", ":"))
        self._client.log_text(run_id, plain, f"{_artifact_name(outcome)}.json")
        if isinstance(outcome, Failed):
            if outcome.log:  # as a file too, to be read in the UI
                self._client.log_text(run_id, outcome.log, "failed.log")
            self._client.set_terminated(run_id, "FAILED")
            return
        self._client.set_terminated(run_id, "FINISHED")
        self._client.set_tag(run_id, FINISHED_TAG, "true")  # last: before it, this is no result
        self._finished[outcome.point.point_id] = without_expert_load(outcome)

    def log_curves(self, curves: Mapping[str, Mapping[int, float]]) -> None:
        """Metrics of the parent; their step is the batch size."""
        for name, curve in curves.items():
            log_curve(self._client, self._parent_id, name, curve)

    def log_file(self, path: Path, folder: str = "") -> None:
        self._client.log_artifact(self._parent_id, str(path), folder or None)

    def close(self, status: str) -> None:
        if status not in _STATUS:
            raise ValueError(f"a sweep closes as {', '.join(_STATUS)}; got {status!r}")
        self._client.set_terminated(self._parent_id, _STATUS[status])

    @property
    def address(self) -> str:
        return location.address(self._uri)

    @property
    def _parent_id(self) -> str:
        if self._open_run_id is None:
            raise RuntimeError("a sweep is opened before it is written to; call open() first")
        return self._open_run_id

    def _create_sweep(self, sweep_id: str, name: str, points: Sequence[SweepPoint]) -> str:
        tags = {"moesd.kind": "sweep", "moesd.sweep_id": sweep_id}
        tags["source"] = " / ".join(sorted({source(point) for point in points}))
        tags |= provenance_tags(self._provenance)
        run = self._client.create_run(self._experiment_id, tags=tags, run_name=name)
        fill(self._client, run.info.run_id, sweep_params(points), {})
        return str(run.info.run_id)

    def _log_provenance(self, openings: int) -> None:
        """A folder per opening: a sweep may be continued with other code, on another machine."""
        provenance = asdict(self._provenance)
        files = {
            "config.yaml": self._config,
            "git.diff": provenance.pop("git_diff"),
            "provenance.json": json.dumps(provenance, indent=2),
        }
        for name, text in files.items():
            self._client.log_text(self._parent_id, text, f"opening_{openings}/{name}")
        self._client.set_tag(self._parent_id, OPENINGS_TAG, str(openings))

    def _read_children(self) -> dict[str, Measurement | Infeasible]:
        """The finished ones; what a crash left half-written is marked as killed."""
        finished: dict[str, Measurement | Infeasible] = {}
        for run in children(self._client, self._experiment_id, self._parent_id):
            if run.data.tags.get(FINISHED_TAG) == "true":
                outcome = unpack(run.data.tags)
                if not isinstance(outcome, Failed):
                    finished[outcome.point.point_id] = outcome
            elif run.info.status not in ("FAILED", "KILLED"):
                self._client.set_terminated(run.info.run_id, "KILLED")
        return finished

    def _create_child(self, outcome: Outcome) -> str:
        tags = {
            "mlflow.parentRunId": self._parent_id,
            "moesd.kind": "point",
            FINISHED_TAG: "false",
            "moesd.git_commit": self._provenance.git_commit,
        }
        tags = filled(tags) | outcome_tags(outcome) | pack(outcome)
        name = run_name(outcome.point)
        run = self._client.create_run(self._experiment_id, tags=tags, run_name=name)
        return str(run.info.run_id)


def _artifact_name(outcome: Outcome) -> str:
    return "measurement" if isinstance(outcome, Measurement) else kind_of(outcome)
