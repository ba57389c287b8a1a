"""The main job as a user runs it: a process, a real Ray cluster, a real MLflow database."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import mlflow
import pandas
import pytest

from analysis.export import export
from analysis.load import load_sweep

REPOSITORY = Path(__file__).parents[1]
SMALL = [
    "model=embedded_small",
    "sweep=batch_sizes",
    "sweep.name=small",
    "sweep.batch_size=[1,2,4]",
    "sweep.gamma=[1,2]",
    "sweep.repeats=2",
    "sweep.window_tokens=16",
    "workload.output_tokens=8",
]
POINTS = 9  # three batch sizes x (baseline + two gammas)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "moesd_dist", *arguments]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def client(folder: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")


def finished(folder: Path) -> Counter[str]:
    """How often each point is in the database as a result."""
    runs = client(folder).search_runs(
        ["1"], "tags.`moesd.finished` = 'true' and tags.`moesd.kind` = 'point'", max_results=500
    )
    return Counter(found.data.tags["moesd.point_id"] for found in runs)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """One finished sweep on Ray, shared by the tests that look at it."""
    folder = tmp_path_factory.mktemp("first")
    done = run(folder, *SMALL)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_every_point_is_printed_and_the_ui_line_comes_last(first):
    _, done = first
    assert f"[{POINTS}/{POINTS}]" in done.stdout
    assert "mlflow ui" in done.stdout.strip().splitlines()[-1]
    assert "speedup" in done.stdout


def test_the_database_holds_one_parent_and_every_point_once(first):
    folder, _ = first
    points = finished(folder)
    assert len(points) == POINTS
    assert set(points.values()) == {1}
    parents = client(folder).search_runs(["1"], "tags.`moesd.kind` = 'sweep'")
    assert len(parents) == 1
    assert parents[0].info.status == "FINISHED"
    assert {"speedup_gamma_1", "target_efficiency_gamma_2"} <= set(parents[0].data.metrics)


def test_a_point_carries_its_axes_metrics_and_raw_repeats(first):
    folder, _ = first
    (found,) = client(folder).search_runs(
        ["1"], "params.batch_size = '4' and params.gamma = '2' and tags.`moesd.kind` = 'point'"
    )
    wanted = {
        "speedup", "speedup_low", "speedup_high", "acceptance_length", "sigma",
        "draft_acceptance_rate", "acceptance_position_1", "acceptance_position_2",
        "target_efficiency", "target_decode_s", "target_verify_s", "draft_s", "reject_s",
        "activated_experts", "expected_activated_experts", "speedup_end_to_end",
    }  # fmt: skip
    assert wanted <= set(found.data.metrics)
    assert found.data.metrics["activated_experts"] > 8
    artifacts = [item.path for item in client(folder).list_artifacts(found.info.run_id)]
    assert "measurement.json" in artifacts


def test_pictures_and_report_are_saved_and_logged(first):
    folder, done = first
    saved = [Path(line) for line in re.findall(r"^saved (.+)$", done.stdout, re.M)]
    assert {path.name for path in saved} == {"report.txt", "speedup.png", "experts.png"}
    assert all(path.stat().st_size > 500 for path in saved)
    (parent,) = client(folder).search_runs(["1"], "tags.`moesd.kind` = 'sweep'")
    logged = {item.path for item in client(folder).list_artifacts(parent.info.run_id)}
    assert {path.name for path in saved} <= logged


def test_a_sweep_is_read_back_and_exported_as_plain_files(first, tmp_path):
    folder, _ = first
    measured = load_sweep(f"sqlite:///{folder}/mlflow.db", "moesd-dist", "small")
    assert len(measured) == POINTS
    export(measured, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"points.json", "points.csv", "report.txt", "speedup.png", "experts.png"}
    rows = pandas.read_csv(tmp_path / "out" / "points.csv")
    assert sorted(rows["gamma"]) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    with pytest.raises(ValueError, match="there are small"):
        load_sweep(f"sqlite:///{folder}/mlflow.db", "moesd-dist", "large")


def test_the_same_command_again_measures_nothing(first):
    folder, _ = first
    again = run(folder, *SMALL)
    assert again.returncode == 0, again.stderr
    assert f"{POINTS} of {POINTS} points were finished by an earlier run" in again.stdout
    assert "tokens/s" not in again.stdout
    assert set(finished(folder).values()) == {1}


def test_killed_in_the_middle_the_same_command_finishes_the_sweep(tmp_path):
    longer = [*SMALL, "sweep.repeats=6", "sweep.window_tokens=64"]  # time to be killed in
    killed = subprocess.Popen(
        command(*longer), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout is not None
    for line in killed.stdout:
        if line.startswith("[4/"):  # the second group has begun to arrive
            break
    killed.send_signal(signal.SIGKILL)
    killed.wait(timeout=30)
    before = finished(tmp_path)
    assert 0 < len(before) < POINTS
    resumed = run(tmp_path, *longer)
    assert resumed.returncode == 0, resumed.stderr
    kept = re.search(rf"(\d+) of {POINTS} points were finished", resumed.stdout)
    assert kept is not None, resumed.stdout
    journaled = int(kept[1])  # MLflow may be behind the journal
    assert len(before) <= journaled < POINTS
    assert resumed.stdout.count("tokens/s") == POINTS - journaled
    after = finished(tmp_path)
    assert len(after) == POINTS
    assert set(after.values()) == {1}


def test_inline_measures_the_same_points_without_ray(tmp_path):
    done = run(tmp_path, *SMALL, "launcher=inline", "sweep.batch_size=[2]", "sweep.repeats=1")
    assert done.returncode == 0, done.stderr
    assert "[3/3]" in done.stdout


def test_a_model_that_does_not_fit_is_infeasible_and_the_sweep_goes_on(tmp_path):
    batches = "sweep.batch_size=[1,100000000]"
    done = run(tmp_path, *SMALL, "launcher=inline", batches, "sweep.gamma=[1]")
    assert done.returncode == 0, done.stderr
    assert re.search(r"B=100000000 gamma=1 infeasible: needs [\d.]+ GiB", done.stdout)
    assert "B=1 gamma=1" in done.stdout
    assert len(finished(tmp_path)) == 4


def test_a_published_shape_is_refused_by_arithmetic_alone(tmp_path):
    began = time.monotonic()
    done = run(tmp_path, "model=deepseek_v3", "sd=synthetic", "workload=random", "launcher=inline")
    assert done.returncode == 0, done.stderr
    assert "infeasible: needs 1249" in done.stdout or "infeasible: needs 12" in done.stdout
    assert time.monotonic() - began < 60


def test_a_prediction_runs_on_ray_without_the_gpus_it_is_of_and_says_so_everywhere(tmp_path):
    batches = ["sweep.batch_size=[1,16]", "sweep.gamma=[4]", "sweep.name=predicted"]
    done = run(tmp_path, "+exp=zero_shot_qwen2", "launcher=ray", *batches)
    assert done.returncode == 0, done.stderr
    assert "*** SIMULATED ***" in done.stdout
    assert "highest simulated speedup" in done.stdout
    runs = client(tmp_path).search_runs(["1"], "tags.source = 'simulated'")
    assert len(runs) == 1 + 4  # the sweep and its points
    export(load_sweep(f"sqlite:///{tmp_path}/mlflow.db", "moesd-dist", "predicted"), tmp_path / "x")
    assert set(pandas.read_csv(tmp_path / "x" / "points.csv")["source"]) == {"simulated"}
    assert "SIMULATED" in (tmp_path / "x" / "report.txt").read_text()
