"""Reads finished points back without writing anything: not even a database that is not there yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from moesd_dist.ports import TrackerUnavailable
from moesd_dist.records import Infeasible, Measurement
from moesd_dist.tracking import location
from moesd_dist.tracking.counting import count
from moesd_dist.tracking.mlflow_runs import children, connect, find_sweep
from moesd_dist.tracking.packing import unpack
from moesd_dist.tracking.point_runs import FINISHED_TAG

NEWEST = 300  # earlier points that are read: enough to tell what points take, in about a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """An experiment of a tracking store."""

    uri: str
    experiment: str

    def finished(self, sweep_id: str) -> Mapping[str, Measurement | Infeasible]:
        """Of that sweep, by point id; none where there is no store, experiment or sweep."""
        if (opened := self._open()) is None:
            return {}
        client, experiment = opened
        parent = find_sweep(client, experiment, sweep_id)
        return count(children(client, experiment, parent.info.run_id)).finished if parent else {}

    def measured(self, params: Mapping[str, str]) -> list[Measurement]:
        """The newest measurements of any sweep whose runs have these parameters."""
        try:
            found = self._newest(params)
        except MlflowException as error:
            raise TrackerUnavailable(str(error)) from error
        outcomes = (unpack(run.data.tags) for run in found)
        return [outcome for outcome in outcomes if isinstance(outcome, Measurement)]

    def _newest(self, params: Mapping[str, str]) -> list[Run]:
        if (opened := self._open()) is None:
            return []
        client, experiment = opened
        wanted = {"tags.`moesd.outcome`": "measured", f"tags.`{FINISHED_TAG}`": "true"}
        wanted |= {f"params.`{name}`": value for name, value in params.items()}
        query = " and ".join(f"{name} = '{value}'" for name, value in wanted.items())
        order = ["attributes.start_time DESC"]
        return list(client.search_runs([experiment], query, max_results=NEWEST, order_by=order))

    def _open(self) -> tuple[MlflowClient, str] | None:
        if not _is_there(self.uri):
            return None
        client = connect(location.check_writable(self.uri))
        found = client.get_experiment_by_name(self.experiment)
        return (client, str(found.experiment_id)) if found else None


def _is_there(uri: str) -> bool:
    """Whether there is anything to read; `check_writable` would make an empty database."""
    if not uri.startswith("sqlite:///"):
        return True
    path = location.sqlite_path(uri)
    return path.is_file() and path.stat().st_size > 0
