"""Keeps a sweep in MLflow: one parent run, and one child run per point."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from mlflow.entities import Run

from moesd_dist.ports import TrackerUnavailable
from moesd_dist.records import Failed, Infeasible, Measurement, Outcome, SweepPoint
from moesd_dist.records.driver import Driver
from moesd_dist.records.slim import without_expert_load
from moesd_dist.tracking import lease, location
from moesd_dist.tracking.counting import SECOND, WITHDRAWN, count, retire
from moesd_dist.tracking.extension import note_points
from moesd_dist.tracking.labels import provenance_tags, source, sweep_params
from moesd_dist.tracking.mlflow_runs import (
    children,
    connect,
    ensure_experiment,
    fill,
    find_sweep,
    log_curve,
)
from moesd_dist.tracking.outage import told
from moesd_dist.tracking.point_runs import FINISHED_TAG, Parent, mark_killed, was_finished, write
from moesd_dist.tracking.provenance import Provenance
from moesd_dist.tracking.redact import redact
from moesd_dist.tracking.writers import Job, Writers

__all__ = ["FINISHED_TAG", "OPENINGS_TAG", "WITHDRAWN", "MlflowTracker"]

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
        driver: Driver | None = None,
    ) -> None:
        self._uri = location.check_writable(tracking_uri)
        self._client = connect(self._uri)
        place = artifact_location or location.artifact_location(self._uri)
        self._experiment_id = ensure_experiment(self._client, experiment, place)
        self._provenance, self.driver = provenance, driver or Driver()
        self._config = redact(resolved_config)
        self._open_run_id: str | None = None
        self._last_driver: Driver | None = None
        self._finished: dict[str, Measurement | Infeasible] | None = None  # not read yet
        self._withdrawn: set[str] = set()
        self._doubtful: set[str] = set()  # points whose last write broke, perhaps after it was done
        self._writers: Writers | None = None

    def open(
        self, sweep_id: str, name: str, points: Sequence[SweepPoint], ended: Driver | None = None
    ) -> None:
        """ValueError if another driver writes the sweep now; `ended` is one that certainly does not."""
        with told():
            found = self._first(sweep_id) or self._created(sweep_id, name, points)
            self._last_driver = lease.holder(found) if lease.given_back(found) else None
            lease.claim(self._client, str(found.info.run_id), self.driver, ended)
            self._open_run_id = str(found.info.run_id)
            self._check_first(sweep_id)
            self._client.update_run(self._open_run_id, status="RUNNING")
            self._log_provenance(openings=int(found.data.tags.get(OPENINGS_TAG, "0")) + 1)
            note_points(self._client, self._open_run_id, points)
        self._finished = None

    def finished(self) -> Mapping[str, Measurement | Infeasible]:
        """Without `expert_load`, which is in the artifact `measurement.json` only."""
        return dict(self._known())

    def withdrawn(self) -> frozenset[str]:
        """Points that were finished, do not count any more, and have not been recorded since."""
        self._known()
        return frozenset(self._withdrawn)

    def record(self, outcome: Outcome, metrics: Mapping[str, float]) -> None:
        """A point that is finished is not written again; one that failed is."""
        if self._settled(outcome):
            return
        point_id = outcome.point.point_id
        try:
            with told():
                again = point_id in self._doubtful
                if not (again and was_finished(self._client, self._parent, point_id)):
                    write(self._client, self._parent, outcome, metrics)
        except TrackerUnavailable:
            self._doubtful.add(point_id)
            raise
        self._keep(outcome)

    def record_many(
        self, outcomes: Sequence[Outcome], metrics: Sequence[Mapping[str, float]]
    ) -> list[int]:
        """Writes outcomes of different points side by side; the places of those that are written.

        TrackerUnavailable if none could be.
        """
        new = [i for i, outcome in enumerate(outcomes) if not self._settled(outcome)]
        jobs = [
            Job(
                outcome=outcomes[i],
                metrics=metrics[i],
                again=outcomes[i].point.point_id in self._doubtful,
            )
            for i in new
        ]
        self._writers = self._writers or Writers(self._uri, self._parent)
        written, reason = self._writers.write(jobs)
        for place in written:
            self._keep(outcomes[new[place]])
        left = set(new) - {new[place] for place in written}
        self._doubtful |= {outcomes[i].point.point_id for i in left}
        if reason:
            self._stop_writers()  # one of them may have died
        if len(left) == len(outcomes):
            raise TrackerUnavailable(reason)
        return [i for i in range(len(outcomes)) if i not in left]

    def withdraw(self, point_id: str, why: str) -> None:
        """The run of the point stays, but it no longer counts."""
        with told():
            for run in self._runs_of(point_id):
                if run.data.tags.get(FINISHED_TAG) == "true":
                    retire(self._client, run.info.run_id, why)
        if self._finished is not None:
            self._finished.pop(point_id, None)
            self._withdrawn.add(point_id)

    def trust(self, finished: Mapping[str, Measurement | Infeasible]) -> None:
        """Of a large sweep, reading them back takes seconds of the processor that measures."""
        self._finished, self._withdrawn = dict(finished), set()

    def renew(self) -> None:
        """Says that this driver still writes; ValueError if another one has taken over."""
        with told():
            lease.renew(self._client, self._parent_id, self.driver)

    def log_curves(self, curves: Mapping[str, Mapping[int, float]]) -> None:
        """Metrics of the parent; their step is the batch size."""
        with told():
            for name, curve in curves.items():
                log_curve(self._client, self._parent_id, name, curve)

    def log_file(self, path: Path, folder: str = "") -> None:
        with told():
            self._client.log_artifact(self._parent_id, str(path), folder or None)

    def close(self, status: str) -> None:
        if status not in _STATUS:
            raise ValueError(f"a sweep closes as {', '.join(_STATUS)}; got {status!r}")
        parent_id = self._parent_id
        self._stop_writers()
        with told():
            if lease.is_held(self._client, parent_id, self.driver):
                self._client.set_terminated(parent_id, _STATUS[status])
                lease.give_back(self._client, parent_id)

    @property
    def run_id(self) -> str:
        """The parent's; empty before the sweep is open."""
        return self._open_run_id or ""

    @property
    def last_driver(self) -> Driver | None:
        """Who closed the sweep before this driver opened it: all that it wrote is there.

        None if nobody did: whoever had it open last was cut off, and may have lost its last words.
        """
        return self._last_driver

    @property
    def address(self) -> str:
        return location.address(self._uri)

    @property
    def _parent_id(self) -> str:
        if self._open_run_id is None:
            raise RuntimeError("a sweep is opened before it is written to; call open() first")
        return self._open_run_id

    @property
    def _parent(self) -> Parent:
        return Parent(
            experiment_id=self._experiment_id,
            run_id=self._parent_id,
            git_commit=self._provenance.git_commit,
        )

    def _known(self) -> dict[str, Measurement | Infeasible]:
        if self._finished is None:
            with told():
                self._finished = self._read_children()
        return self._finished

    def _settled(self, outcome: Outcome) -> bool:
        known = self._known().get(outcome.point.point_id)
        return isinstance(known, Measurement) or (
            known is not None and isinstance(outcome, Infeasible)
        )

    def _keep(self, outcome: Outcome) -> None:
        self._doubtful.discard(outcome.point.point_id)
        if not isinstance(outcome, Failed):
            self._known()[outcome.point.point_id] = without_expert_load(outcome)
            self._withdrawn.discard(outcome.point.point_id)

    def _stop_writers(self) -> None:
        if self._writers is not None:
            self._writers.close()
        self._writers = None

    def _runs_of(self, point_id: str) -> list[Run]:
        query = (
            f"tags.`mlflow.parentRunId` = '{self._parent_id}' and "
            f"tags.`moesd.point_id` = '{point_id}'"
        )
        return list(self._client.search_runs([self._experiment_id], query))

    def _first(self, sweep_id: str) -> Run | None:
        return find_sweep(self._client, self._experiment_id, sweep_id)

    def _check_first(self, sweep_id: str) -> None:
        """Clocks differ: what another driver has created meanwhile may be the older one."""
        first = self._first(sweep_id)
        if first is not None and first.info.run_id != self._open_run_id:
            raise ValueError(
                "one driver at a time writes a sweep; another one has started this one at the same "
                f"moment (run {first.info.run_id}); wait for it, or use another sweep.name"
            )

    def _created(self, sweep_id: str, name: str, points: Sequence[SweepPoint]) -> Run:
        """A new parent; the one of another driver if that was quicker."""
        tags = {"moesd.kind": "sweep", "moesd.sweep_id": sweep_id}
        tags["source"] = " / ".join(sorted({source(point) for point in points}))
        tags |= provenance_tags(self._provenance)
        run = self._client.create_run(self._experiment_id, tags=tags, run_name=name)
        first = self._first(sweep_id)
        if first is not None and first.info.run_id != run.info.run_id:
            self._client.delete_run(run.info.run_id)
            return first
        fill(self._client, run.info.run_id, sweep_params(points), {})
        return run

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
        """The finished ones, one of each point; what a crash left half-written is marked as killed."""
        counted = count(children(self._client, self._experiment_id, self._parent_id))
        for run in counted.cut_short:
            mark_killed(self._client, run)
        for run_id in counted.second:
            retire(self._client, run_id, SECOND)
        self._withdrawn = counted.withdrawn
        return counted.finished
