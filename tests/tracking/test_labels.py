"""What runs are called."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moesd_dist.records import DraftMethod, ModelSource, ModelSpec, Role, SdSpec
from moesd_dist.tracking.labels import (
    acceptance,
    filled,
    outcome_tags,
    point_params,
    run_name,
    sweep_params,
)

from .conftest import MakeMeasurement, MakePoint


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        pytest.param({}, "B=8 gamma=3", id="defaults are left out"),
        pytest.param({"temperature": 1.0}, "B=8 gamma=3 T=1.0", id="temperature"),
        pytest.param({"top_k": 2}, "B=8 gamma=3 K=2", id="experts per token"),
        pytest.param({"gamma": 0, "role": Role.control}, "B=8 gamma=0 control", id="A/A run"),
    ],
)
def test_a_run_is_named_for_its_axes(
    make_point: MakePoint, changes: dict[str, Any], name: str
) -> None:
    assert run_name(make_point(**changes)) == name


def test_acceptance_is_verified_synthetic_or_a_baseline(make_point: MakePoint) -> None:
    point = make_point()
    assert acceptance(point) == "verified"
    assert acceptance(make_point(sd=SdSpec(synthetic_acceptance=(0.8,)))) == "synthetic"
    assert acceptance(point.baseline) == "baseline"


@pytest.mark.parametrize("method", [DraftMethod.oracle, DraftMethod.fixed])
def test_drafts_made_to_be_accepted_are_controlled(
    make_point: MakePoint, method: DraftMethod
) -> None:
    point = make_point(sd=SdSpec(method=method, alpha=0.8))
    assert acceptance(point) == "controlled"
    assert acceptance(point.baseline) == "baseline"


def test_params_stay_within_one_batch_and_hold_text_only(make_point: MakePoint) -> None:
    model = ModelSpec(name="m", source=ModelSource.shape)
    params = point_params(make_point(target=model, sd=SdSpec(synthetic_acceptance=(0.8, 0.5))))
    assert len(params) <= 100
    assert params["synthetic_acceptance"] == "0.8, 0.5"
    assert params["top_k"] == "model"
    assert params["draft"] == "none"


def test_the_machines_facts_are_tags(
    make_point: MakePoint, make_measurement: MakeMeasurement
) -> None:
    found = replace(make_measurement(make_point()), machine={"cpu_affinity": "0-1", "boost": ""})
    tags = outcome_tags(found)
    assert tags["moesd.machine.cpu_affinity"] == "0-1"
    assert "moesd.machine.boost" not in tags


def test_tags_have_no_control_characters_and_none_is_empty() -> None:
    told = {"reason": "broke\x00\x1b[31m at\n\tline 1 \ud800é", "nothing": "\x00"}
    assert filled(told) == {"reason": "broke[31m at\n\tline 1 é"}


def test_a_long_axis_is_shortened(make_point: MakePoint) -> None:
    params = sweep_params([make_point(batch_size) for batch_size in range(1, 513)])
    assert params["points"] == "512"
    assert params["batch_size"] == "1 ... 512 (512 values)"
    assert params["gamma"] == "3"
