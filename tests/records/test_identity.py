"""A point has the same name on every machine and in every later version."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from moesd_dist.records import ModelSource, ModelSpec, Protocol, SweepPoint, WorkloadSpec
from moesd_dist.records.identity import identity

POINT = SweepPoint(
    engine="transformers",
    target=ModelSpec(name="embedded", source=ModelSource.embedded, location="target"),
    workload=WorkloadSpec(
        name="stdlib", prompt_tokens_min=16, prompt_tokens_max=64, output_tokens=64
    ),
    batch_size=8,
    gamma=3,
)


@dataclass(frozen=True, kw_only=True)
class Old:
    a: int


@dataclass(frozen=True, kw_only=True)
class New:
    a: int
    b: tuple[int, ...] = ()
    c: float = 0.5


def test_a_point_id_stays_what_it_was() -> None:
    assert POINT.point_id == "5025cc7af905a684"


def test_a_new_field_with_a_default_leaves_identities_valid() -> None:
    assert identity(New(a=1)) == identity(Old(a=1))
    assert identity(New(a=1, c=0.25)) != identity(Old(a=1))


def test_a_default_written_out_changes_nothing() -> None:
    assert replace(POINT, threads=1, protocol=Protocol(repeats=5)).point_id == POINT.point_id


def test_the_path_of_the_prompts_is_no_part_of_the_identity() -> None:
    moved = replace(POINT, workload=replace(POINT.workload, path="/elsewhere"))
    assert moved == POINT
    assert moved.point_id == POINT.point_id


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(POINT, batch_size=9), id="batch size"),
        pytest.param(replace(POINT, temperature=0.1), id="temperature"),
        pytest.param(replace(POINT, protocol=Protocol(repeats=6)), id="a nested field"),
        pytest.param(replace(POINT, workload=replace(POINT.workload, digest="d")), id="prompts"),
        pytest.param(POINT.baseline, id="the baseline"),
    ],
)
def test_whatever_changes_what_is_measured_changes_the_identity(other: SweepPoint) -> None:
    assert other.point_id != POINT.point_id


def test_an_identity_is_taken_of_plain_values_only() -> None:
    with pytest.raises(ValueError, match="plain values only; got complex"):
        identity(replace(POINT, top_k=1j))  # type: ignore[arg-type]


def test_whole_numbers_and_floats_of_a_temperature_are_one_point() -> None:
    assert replace(POINT, temperature=1).point_id == replace(POINT, temperature=1.0).point_id
