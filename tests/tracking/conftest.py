"""Points, measurements and trackers on a real sqlite database."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from moesd_dist.records import (
    DraftMethod,
    Measurement,
    ModelSource,
    ModelSpec,
    Repeat,
    SdSpec,
    SweepPoint,
    WorkloadSpec,
)
from moesd_dist.tracking.mlflow import MlflowTracker
from moesd_dist.tracking.mlflow_runs import connect
from moesd_dist.tracking.provenance import Provenance

MakePoint = Callable[..., SweepPoint]
MakeMeasurement = Callable[[SweepPoint], Measurement]
OpenTracker = Callable[..., MlflowTracker]

_TARGET = ModelSpec(name="embedded-target", source=ModelSource.embedded, location="target")
_DRAFT = ModelSpec(name="embedded-draft", source=ModelSource.embedded, location="draft")
_WORKLOAD = WorkloadSpec(
    name="stdlib", prompt_tokens_min=16, prompt_tokens_max=64, output_tokens=64, path="/somewhere"
)


@pytest.fixture
def make_point() -> MakePoint:
    def make(batch_size: int = 8, gamma: int = 3, **changes: object) -> SweepPoint:
        values = {
            "engine": "transformers",
            "target": _TARGET,
            "workload": _WORKLOAD,
            "batch_size": batch_size,
            "gamma": gamma,
            "sd": SdSpec(method=DraftMethod.draft_model, draft=_DRAFT),
        }
        return SweepPoint(**(values | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_measurement() -> MakeMeasurement:
    def make(point: SweepPoint) -> Measurement:
        return Measurement(
            point=point,
            repeats=tuple(_repeat(point.gamma, 1.0 + i / 3) for i in range(3)),
            baseline=tuple(_repeat(0, 2.0 + i / 7) for i in range(3)),
            top_k=8,
            num_experts=64,
            host="a-host",
            flags=("foreign_load", "short"),
            versions={"torch": "2.13.0"},
        )

    return make


@pytest.fixture
def provenance() -> Provenance:
    return Provenance(
        command="python -m moesd_dist", git_commit="c0ffee", packages={"ray": "2.60.0"}
    )


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once and copied: MLflow's tables take a second or two."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(tmp_path: Path, empty_database: Path) -> str:
    path = tmp_path / "kept here" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy(empty_database, path)
    return f"sqlite:///{path}"


@pytest.fixture
def open_tracker(uri: str, provenance: Provenance) -> OpenTracker:
    def make(*points: SweepPoint, sweep_id: str = "abc", config: str = "a: 1\n") -> MlflowTracker:
        tracker = MlflowTracker(uri, "moesd", provenance, config)
        tracker.open(sweep_id, "a sweep", points)
        return tracker

    return make


def _repeat(gamma: int, seconds: float) -> Repeat:
    return Repeat(
        seconds=seconds,
        rounds=10,
        tokens=200,
        drafted=80 * gamma,
        accepted=40 * gamma,
        accepted_per_position=tuple(60 - i for i in range(gamma)),
        sequence_rounds=80,
        draft_s=0.1,
        target_s=0.7,
        reject_s=0.05,
        tokens_per_forward=gamma + 1,
        median_target_s=0.07,
        median_draft_s=0.01,
        expert_load=((1, 2, 3), (4, 5, 6)),
    )
