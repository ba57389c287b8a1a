"""`sweep=adaptive` as a user runs it: stopped by its budget, continued with a larger one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import mlflow

REPOSITORY = Path(__file__).parents[1]
SIMULATED = [
    "model=qwen2_57b_a14b",
    "sd=synthetic_draft",
    "workload=random",
    "engine=analytic",
    "engine.noise=0.02",
    "hardware=H100",
    "layout.tp_size=4",
    "sweep=adaptive",
    "sweep.adaptive.objective=fit",
    "sweep.adaptive.target_interval=0",
]


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "moesd_dist", *SIMULATED, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def recorded(folder: Path) -> Counter[str]:
    """How often each SD point is in the database as a result."""
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs(["1"], "tags.`moesd.finished` = 'true' and tags.`moesd.role` = 'sd'")
    return Counter(found.data.tags["moesd.point_id"] for found in runs)


def test_a_larger_budget_continues_the_sweep_on_ray_round_by_round(tmp_path):
    first = run(tmp_path, "sweep.adaptive.budget=5", "launcher=inline")
    assert "measured 5 of 40 SD points: the budget is spent; mean interval" in first
    assert [line[:7] for line in first.splitlines() if line.startswith("round")] == [
        "round 1",
        "round 2",
    ]
    before = recorded(tmp_path)
    second = run(tmp_path, "sweep.adaptive.budget=9")
    assert "points were finished by an earlier run" in second
    assert second.count("\nround ") == 2
    assert re.search(
        r"^round 2 \(mean interval of a prediction ±.*\): B=\d+ gamma=\d", second, re.M
    )
    assert "measured 9 of 40 SD points: the budget is spent" in second
    assert before.keys() < recorded(tmp_path).keys()
    assert len(recorded(tmp_path)) == 9
    assert set(recorded(tmp_path).values()) == {1}
