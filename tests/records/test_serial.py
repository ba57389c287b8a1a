"""Records travel as plain values and come back without loss."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from moesd_dist.records import (
    Device,
    DraftMethod,
    Failed,
    Infeasible,
    LayoutSpec,
    Measurement,
    ModelSource,
    ModelSpec,
    Outcome,
    Repeat,
    Role,
    SdSpec,
    SweepPoint,
    WorkloadSpec,
)
from moesd_dist.records.serial import (
    from_plain,
    measurement_from_plain,
    outcome_from_plain,
    point_from_plain,
    to_plain,
)

MODEL = ModelSpec(
    name="m", source=ModelSource.shape, config=(("num_experts", "64"), ("top_k", "8"))
)
POINT = SweepPoint(
    engine="analytic",
    target=MODEL,
    workload=WorkloadSpec(
        name="w", prompt_tokens_min=1, prompt_tokens_max=2, output_tokens=3, path="/here"
    ),
    batch_size=8,
    gamma=3,
    sd=SdSpec(method=DraftMethod.draft_model, draft=MODEL, synthetic_acceptance=(0.8, 0.1)),
    temperature=0.1,
    top_k=2,
    device=Device.cuda,
    layout=LayoutSpec(ep_size=4),
    role=Role.control,
)
REPEAT = Repeat(
    seconds=1 / 3,
    rounds=10,
    tokens=200,
    drafted=240,
    accepted=120,
    accepted_per_position=(60, 40, 20),
    sequence_rounds=80,
    draft_s=1e-300,
    target_s=0.1 + 0.2,
    reject_s=math.inf,
    tokens_per_forward=4,
    median_target_s=0.07,
    median_draft_s=5e-324,
    expert_load=((1, 2), (3, 4)),
)
MEASUREMENT = Measurement(
    point=POINT,
    repeats=(REPEAT, REPEAT),
    baseline=(REPEAT, REPEAT),
    flags=("foreign_load",),
    versions={"torch": "2.13.0"},
    machine={"cpu_affinity": "0-1"},
)


def through_json(record: Any) -> Any:
    return json.loads(json.dumps(to_plain(record), allow_nan=False))


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(MEASUREMENT, id="measured"),
        pytest.param(Infeasible(point=POINT, reason="no room", bytes_needed=9), id="infeasible"),
        pytest.param(Failed(point=POINT, reason="broke", log="a\nb"), id="failed"),
    ],
)
def test_an_outcome_comes_back_equal(outcome: Outcome) -> None:
    back = outcome_from_plain(through_json(outcome))
    assert back == outcome
    assert back.point.workload.path == "/here"


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(POINT, id="everything set"),
        pytest.param(POINT.baseline, id="no draft"),
        pytest.param(replace(POINT, temperature=1), id="an int where a float belongs"),
        pytest.param(replace(POINT, top_k=None), id="None"),
    ],
)
def test_the_point_id_survives_the_round_trip(point: SweepPoint) -> None:
    assert point_from_plain(through_json(point)).point_id == point.point_id


def test_a_number_that_json_lacks_survives() -> None:
    back = from_plain(Repeat, through_json(replace(REPEAT, prefill_s=math.nan)))
    assert math.isnan(back.prefill_s)
    assert back.reject_s == math.inf


def test_a_key_of_a_later_version_is_refused_by_name() -> None:
    plain = through_json(POINT) | {"prefetch": True}
    with pytest.raises(ValueError, match=r"SweepPoint has no 'prefetch': .*later version"):
        point_from_plain(plain)


def test_a_missing_key_takes_its_default() -> None:
    plain = through_json(POINT)
    del plain["threads"], plain["layout"]["ep_size"], plain["workload"]["path"]
    back = point_from_plain(plain)
    assert (back.threads, back.layout.ep_size, back.workload.path) == (1, 1, "")


def test_a_record_from_before_machines_were_described_is_still_read() -> None:
    plain = through_json(MEASUREMENT)
    del plain["machine"]
    assert outcome_from_plain(plain) == replace(MEASUREMENT, machine={})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"batch_size": "8"}, "batch_size cannot be read from '8'", id="text"),
        pytest.param({"device": "tpu"}, "'tpu' is not a valid Device", id="no such value"),
        pytest.param({"layout": 3}, "LayoutSpec is read from a mapping; got 3", id="no mapping"),
        pytest.param(
            {"sd": {"synthetic_acceptance": 0.8}}, "cannot be read from 0.8", id="no list"
        ),
        pytest.param({"target": {"name": "m"}}, "ModelSpec needs 'source'", id="required"),
    ],
)
def test_a_wrong_value_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        point_from_plain(through_json(POINT) | change)


def test_an_outcome_says_which_one_it_is() -> None:
    assert to_plain(MEASUREMENT)["outcome"] == "measured"
    with pytest.raises(ValueError, match="measured, infeasible, failed; got 'finished'"):
        outcome_from_plain({"outcome": "finished"})
    with pytest.raises(ValueError, match="this outcome is 'failed'"):
        measurement_from_plain(to_plain(Failed(point=POINT, reason="broke")))


def test_a_value_that_is_not_plain_is_refused() -> None:
    with pytest.raises(ValueError, match="plain values only; got set"):
        to_plain(replace(MEASUREMENT, flags={"a"}))  # type: ignore[arg-type]
