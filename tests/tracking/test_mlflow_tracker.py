"""The MLflow tracker on a real sqlite database."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from moesd_dist.records import Failed, Infeasible
from moesd_dist.records.serial import measurement_from_plain
from moesd_dist.records.slim import without_expert_load
from moesd_dist.tracking.mlflow import FINISHED_TAG, MlflowTracker
from moesd_dist.tracking.packing import TAG
from moesd_dist.tracking.provenance import Provenance

from .conftest import MakeMeasurement, MakePoint, OpenTracker


def runs(uri: str, kind: str) -> list[Run]:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("moesd")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.`moesd.kind` = '{kind}'"))


def artifact(uri: str, run: Run, path: str) -> str:
    return Path(
        MlflowClient(tracking_uri=uri).download_artifacts(run.info.run_id, path)
    ).read_text()


def test_a_finished_point_is_read_back_as_it_was_measured(
    open_tracker: OpenTracker, make_point: MakePoint, make_measurement: MakeMeasurement
) -> None:
    point = make_point()
    measurement = make_measurement(point)
    open_tracker(point).record(measurement, {"speedup": 1.5})
    kept = open_tracker(point).finished()
    assert kept == {point.point_id: without_expert_load(measurement)}
    assert kept[point.point_id].point.workload.path == "/somewhere"


def test_the_expert_load_is_kept_in_the_artifact(
    open_tracker: OpenTracker, make_point: MakePoint, make_measurement: MakeMeasurement, uri: str
) -> None:
    measurement = make_measurement(make_point())
    open_tracker().record(measurement, {})
    (child,) = runs(uri, "point")
    assert (
        measurement_from_plain(json.loads(artifact(uri, child, "measurement.json"))) == measurement
    )


def test_a_repeated_point_leaves_one_record(
    open_tracker: OpenTracker, make_point: MakePoint, make_measurement: MakeMeasurement, uri: str
) -> None:
    measurement = make_measurement(make_point())
    tracker = open_tracker()
    tracker.record(measurement, {"speedup": 1.5})
    tracker.record(measurement, {"speedup": 1.6})
    open_tracker().record(measurement, {"speedup": 1.7})
    (child,) = runs(uri, "point")
    assert child.data.metrics == {"speedup": 1.5}


def test_a_run_killed_before_its_finished_tag_is_not_a_result(
    open_tracker: OpenTracker, make_point: MakePoint, make_measurement: MakeMeasurement, uri: str
) -> None:
    measurement = make_measurement(make_point())
    open_tracker().record(measurement, {})
    (child,) = runs(uri, "point")
    client = MlflowClient(tracking_uri=uri)
    client.set_tag(child.info.run_id, FINISHED_TAG, "false")  # as it stood until the last write
    again = open_tracker()
    assert again.finished() == {}
    assert client.get_run(child.info.run_id).info.status == "KILLED"
    again.record(measurement, {})
    assert list(open_tracker().finished()) == [measurement.point.point_id]


def test_a_second_open_continues_the_same_parent(open_tracker: OpenTracker, uri: str) -> None:
    open_tracker().close("incomplete")
    (first,) = runs(uri, "sweep")
    assert first.info.status == "KILLED"
    tracker = open_tracker(config="a: 2\n")
    (second,) = runs(uri, "sweep")
    assert (second.info.run_id, second.info.status) == (first.info.run_id, "RUNNING")
    tracker.close("finished")
    assert runs(uri, "sweep")[0].info.status == "FINISHED"
    assert artifact(uri, second, "opening_1/config.yaml") == "a: 1\n"
    assert artifact(uri, second, "opening_2/config.yaml") == "a: 2\n"


def test_sweeps_with_different_ids_do_not_share_results(
    open_tracker: OpenTracker, make_point: MakePoint, make_measurement: MakeMeasurement, uri: str
) -> None:
    open_tracker(sweep_id="one").record(make_measurement(make_point()), {})
    assert open_tracker(sweep_id="two").finished() == {}
    assert len(runs(uri, "sweep")) == 2


def test_an_infeasible_point_is_finished_and_a_failed_one_is_tried_again(
    open_tracker: OpenTracker, make_point: MakePoint, make_measurement: MakeMeasurement, uri: str
) -> None:
    too_big, broken = make_point(512), make_point(4)
    infeasible = Infeasible(point=too_big, reason="needs 9 bytes", bytes_needed=9)
    tracker = open_tracker(too_big, broken)
    tracker.record(infeasible, {})
    tracker.record(Failed(point=broken, reason="out of luck", log="traceback"), {})
    again = open_tracker(too_big, broken)
    assert again.finished() == {too_big.point_id: infeasible}
    again.record(make_measurement(broken), {})
    ends = sorted((r.info.status, r.data.tags["moesd.outcome"]) for r in runs(uri, "point"))
    assert ends == [("FAILED", "failed"), ("FINISHED", "infeasible"), ("FINISHED", "measured")]


def test_the_log_of_a_failed_point_is_an_artifact_of_its_run(
    open_tracker: OpenTracker, make_point: MakePoint, uri: str
) -> None:
    """As long as the tail of an engine's log may be: 64 KiB."""
    log = "\n".join(f"(EngineCore pid=7) ERROR {line:055}" for line in range(800))
    failed = Failed(point=make_point(), reason="vLLM could not start", log=log)
    open_tracker(failed.point).record(failed, {})
    (child,) = runs(uri, "point")
    assert (child.info.status, len(log) > 60_000) == ("FAILED", True)
    assert json.loads(artifact(uri, child, "failed.json"))["log"] == log
    assert artifact(uri, child, "failed.log") == log


def test_a_child_says_what_it_is_in_tags_and_params(
    open_tracker: OpenTracker, make_point: MakePoint, make_measurement: MakeMeasurement, uri: str
) -> None:
    point = make_point(batch_size=8, gamma=3)
    open_tracker(point).record(make_measurement(point), {})
    (child,) = runs(uri, "point")
    (parent,) = runs(uri, "sweep")
    told = {
        key: value
        for key, value in child.data.tags.items()
        if key.startswith(("moesd.", "mlflow.parent")) and not key.startswith(TAG)
    }
    assert child.info.run_name == "B=8 gamma=3"
    assert told == {
        "mlflow.parentRunId": parent.info.run_id,
        "moesd.kind": "point",
        "moesd.finished": "true",
        "moesd.point_id": point.point_id,
        "moesd.outcome": "measured",
        "moesd.source": "measured",
        "moesd.acceptance": "verified",
        "moesd.weights": "trained",
        "moesd.role": "sd",
        "moesd.flags": "foreign_load,short",
        "moesd.host": "a-host",
        "moesd.git_commit": "c0ffee",
    }
    assert child.data.params["draft"] == "embedded-draft"
    assert child.data.params["ep_size"] == "1"


def test_the_parent_keeps_axes_and_provenance(
    open_tracker: OpenTracker, make_point: MakePoint, uri: str
) -> None:
    open_tracker(*(make_point(batch_size, 3) for batch_size in (1, 2, 4)))
    (parent,) = runs(uri, "sweep")
    assert parent.data.params["points"] == "3"
    assert parent.data.params["batch_size"] == "1, 2, 4"
    assert parent.data.tags["moesd.git_commit"] == "c0ffee"
    assert parent.data.tags["moesd.version.ray"] == "2.60.0"
    told = json.loads(artifact(uri, parent, "opening_1/provenance.json"))
    assert told["command"] == "python -m moesd_dist"


def test_a_metric_that_is_no_number_is_dropped_and_named(
    open_tracker: OpenTracker, make_point: MakePoint, make_measurement: MakeMeasurement, uri: str
) -> None:
    metrics = {"speedup": 2.0, "sigma": math.nan, "ratio": math.inf}
    open_tracker().record(make_measurement(make_point()), metrics)
    (child,) = runs(uri, "point")
    assert child.data.metrics == {"speedup": 2.0}
    assert child.data.tags["moesd.dropped_metrics"] == "sigma, ratio"


def test_a_curve_logged_twice_holds_each_point_once(open_tracker: OpenTracker, uri: str) -> None:
    open_tracker().log_curves({"speedup": {1: 1.1, 2: 1.4}})
    open_tracker().log_curves({"speedup": {1: 1.1, 2: 1.4, 4: 1.9}})
    assert _history(uri, "speedup") == [(1, 1.1), (2, 1.4), (4, 1.9)]


def test_a_revised_curve_does_not_mix_with_the_old_one(open_tracker: OpenTracker, uri: str) -> None:
    open_tracker().log_curves({"speedup": {1: 1.1, 2: 1.4}})
    open_tracker().log_curves({"speedup": {1: 1.1, 2: 1.3, 4: math.nan}})
    assert _history(uri, "speedup") == [(1, 1.1), (2, 1.4)]
    assert _history(uri, "speedup.revision_2") == [(1, 1.1), (2, 1.3)]


def test_secrets_in_the_config_do_not_reach_the_artifact(
    open_tracker: OpenTracker, uri: str
) -> None:
    secret = "hf_" + "aB3dE5gH7jK9mN1pQ3sT5vW7"
    open_tracker(config=f"num_draft_tokens: 4\nlogin: {secret}\n")
    (parent,) = runs(uri, "sweep")
    assert (
        artifact(uri, parent, "opening_1/config.yaml") == "num_draft_tokens: 4\nlogin: <redacted>\n"
    )


def test_files_and_artifacts_lie_next_to_the_database(
    open_tracker: OpenTracker, uri: str, tmp_path: Path
) -> None:
    figure = tmp_path / "figure.svg"
    figure.write_text("<svg/>")
    open_tracker().log_file(figure, "figures")
    (parent,) = runs(uri, "sweep")
    kept = tmp_path / "kept here" / "mlartifacts" / parent.info.run_id / "artifacts"
    assert (kept / "figures" / "figure.svg").read_text() == "<svg/>"


def test_a_hundred_finished_points_are_read_in_under_a_second(
    open_tracker: OpenTracker, make_point: MakePoint, make_measurement: MakeMeasurement
) -> None:
    points = [make_point(batch_size) for batch_size in range(1, 101)]
    tracker = open_tracker(*points)
    for point in points:
        tracker.record(make_measurement(point), {"speedup": 1.0})
    start = time.process_time()
    assert len(open_tracker(*points).finished()) == 100
    assert time.process_time() - start < 1.0


def test_an_unknown_status_is_refused(open_tracker: OpenTracker) -> None:
    with pytest.raises(ValueError, match=r"finished, incomplete, failed; got 'done'"):
        open_tracker().close("done")


def test_writing_before_open_is_refused(uri: str, provenance: Provenance) -> None:
    with pytest.raises(RuntimeError, match=r"call open\(\) first"):
        MlflowTracker(uri, "moesd", provenance, "").close("finished")


def test_a_deleted_experiment_is_refused_with_the_way_back(
    open_tracker: OpenTracker, uri: str
) -> None:
    open_tracker()
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("moesd")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(ValueError, match=r"mlflow experiments restore"):
        open_tracker()


def test_a_fresh_database_is_made_without_chatter(tmp_path: Path) -> None:
    code = (
        "from moesd_dist.tracking.mlflow import MlflowTracker as T\n"
        "from moesd_dist.tracking.provenance import Provenance as P\n"
        f"t = T('sqlite:///{tmp_path}/mlflow.db', 'e', P(command='c'), '')\n"
        "t.open('id', 'name', []); t.close('finished')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def _history(uri: str, name: str) -> list[tuple[int, float]]:
    (parent,) = runs(uri, "sweep")
    history = MlflowClient(tracking_uri=uri).get_metric_history(parent.info.run_id, name)
    return sorted((m.step, m.value) for m in history)
