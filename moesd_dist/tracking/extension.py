"""Which points a stored sweep has, so that a person can add to them and nobody does unasked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from requests.exceptions import RequestException

from moesd_dist.ports import TrackerUnavailable
from moesd_dist.records import SweepPoint
from moesd_dist.tracking import location
from moesd_dist.tracking.labels import run_name
from moesd_dist.tracking.mlflow_runs import children, connect
from moesd_dist.tracking.outage import told

POINTS_FILE = "points.json"
POINTS_TAG = "moesd.points"
EXTENDED_TAG = "moesd.extended_to"
_PREFIX = 6  # characters of an id that are enough


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The id under which the points are kept, and what a person is told about it, if anything."""

    sweep_id: str
    note: str = ""


def note_points(client: MlflowClient, run_id: str, points: Sequence[SweepPoint]) -> None:
    """Keeps which points the sweep has with its run; none is ever taken away again."""
    stored = _noted(client, client.get_run(run_id))
    names = {**stored, **{point.point_id: run_name(point) for point in points}}
    if len(names) > len(stored):
        client.log_text(run_id, json.dumps(names, indent=0), POINTS_FILE)
        client.set_tag(run_id, EXTENDED_TAG if stored else POINTS_TAG, str(len(names)))


def opening(
    tracking_uri: str,
    experiment: str,
    own: tuple[str, str],
    points: Sequence[SweepPoint],
    extends: str = "",
) -> Opening:
    """Where a sweep with this name and id goes on, or that it is a new one; writes nothing.

    `extends` is the id, or the beginning of one, of a stored sweep that gets more points: ValueError
    if there is none, or if any of its points is not among the new ones.
    """
    try:
        with told():
            found = _experiment(tracking_uri, experiment)
            if extends:
                return _extension(found, extends, {p.point_id for p in points})
            return _new_or_same(found, *own, {p.point_id for p in points})
    except TrackerUnavailable as error:
        raise ValueError(
            f"the tracker answers when a sweep starts; it does not: {error}; see to it, or choose "
            "another tracking.uri"
        ) from error


_Experiment = tuple[MlflowClient, str]


def _new_or_same(found: _Experiment | None, name: str, own_id: str, points: Set[str]) -> Opening:
    like = _sweeps(found, f"tags.`mlflow.runName` LIKE {_pattern(name)}") if found else []
    sweeps = [run for run in like if run.info.run_name == name]
    if found is None or not sweeps or any(_id(run) == own_id for run in sweeps):
        return Opening(sweep_id=own_id)
    stored = _stored_points(found, sweeps[0])
    return Opening(sweep_id=own_id, note=_namesake(name, _id(sweeps[0]), stored.keys(), points))


def _namesake(name: str, sweep_id: str, stored: Set[str], points: Set[str]) -> str:
    lost = len(stored - points)
    way = f"it has {lost} points that this one lacks"
    if not lost:
        way = f"sweep.extends={sweep_id} would continue it"
    which = "the same" if stored == points else "other"
    return (
        f"a sweep named {name} with {which} points exists ({sweep_id}, {len(stored)} points); "
        f"this is a new one; {way}"
    )


def _extension(found: _Experiment | None, extends: str, points: Set[str]) -> Opening:
    if not re.fullmatch(rf"[0-9a-f]{{{_PREFIX},16}}", extends):
        raise ValueError(
            f"sweep.extends is the id of a sweep or its first {_PREFIX} or more hexadecimal digits, "
            f"got {extends!r}; it is the tag moesd.sweep_id of its run"
        )
    sweeps = _sweeps(found, f"tags.`moesd.sweep_id` LIKE '{extends}%'") if found else []
    ids = list(dict.fromkeys(map(_id, sweeps)))
    if found is None or len(ids) != 1:
        there = f"{len(ids)} begin with it: {', '.join(ids)}" if ids else "there is none"
        raise ValueError(f"sweep.extends={extends} names one sweep of the experiment; {there}")
    stored = _stored_points(found, sweeps[-1])
    if missing := [name for point_id, name in stored.items() if point_id not in points]:
        raise ValueError(
            f"an extended sweep keeps all of its points; {len(missing)} of the {len(stored)} of "
            f"{ids[0]} are not among these {len(points)}, such as {missing[0]}; add them, or leave "
            "sweep.extends away"
        )
    name, more = sweeps[-1].info.run_name, len(points) - len(stored)
    note = f"continues sweep {name} ({ids[0]}) of {len(stored)} points with {more} more"
    return Opening(sweep_id=ids[0], note=note)


def _experiment(tracking_uri: str, name: str) -> _Experiment | None:
    """None where there is no store or no such experiment yet."""
    if tracking_uri.startswith("sqlite:///"):
        path = location.sqlite_path(tracking_uri)
        if not path.is_file() or not path.stat().st_size:
            return None
    client = connect(location.check_writable(tracking_uri))
    found = client.get_experiment_by_name(name)
    return (client, str(found.experiment_id)) if found else None


def _sweeps(found: _Experiment, condition: str) -> list[Run]:
    """Newest first; of two of one id the oldest counts, as everywhere."""
    client, experiment_id = found
    query = f"tags.`moesd.kind` = 'sweep' and {condition}"
    return list(client.search_runs([experiment_id], query, order_by=["attributes.start_time DESC"]))


def _id(run: Run) -> str:
    return str(run.data.tags["moesd.sweep_id"])


def _stored_points(found: _Experiment, run: Run) -> Mapping[str, str]:
    """Names by point id; of a sweep from before they were noted, those that were tried."""
    client, experiment_id = found
    if noted := _noted(client, run):
        return noted
    tried = children(client, experiment_id, str(run.info.run_id))
    return {r.data.tags["moesd.point_id"]: str(r.info.run_name) for r in tried}


def _noted(client: MlflowClient, run: Run) -> Mapping[str, str]:
    if POINTS_TAG not in run.data.tags:
        return {}
    try:
        with told(), TemporaryDirectory() as folder:
            path = Path(client.download_artifacts(run.info.run_id, POINTS_FILE, folder))
            names: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except (MlflowException, RequestException, OSError, ValueError):  # gone, moved or cut short
        return {}
    return names


def _pattern(text: str) -> str:
    """For LIKE, which takes what a quoted text cannot hold as any character."""
    return "'" + re.sub(r"['\"\\]", "_", text) + "'"
