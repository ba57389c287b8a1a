"""Axes become points."""

from __future__ import annotations

import pytest

from moesd_dist.records import Role
from moesd_dist.sweep.grid import expand


def test_every_sd_point_brings_its_baseline_once(base):
    points = expand(base(), {"batch_size": [1, 4], "gamma": [1, 3]})
    assert [(p.batch_size, p.gamma, p.role) for p in points] == [
        (1, 0, Role.baseline),
        (1, 1, Role.sd),
        (1, 3, Role.sd),
        (4, 0, Role.baseline),
        (4, 1, Role.sd),
        (4, 3, Role.sd),
    ]


def test_gamma_zero_on_the_axis_is_the_baseline_itself(base):
    points = expand(base(), {"gamma": [0, 2]})
    assert [(p.gamma, p.role) for p in points] == [(0, Role.baseline), (2, Role.sd)]


def test_a_control_is_a_second_baseline_in_each_group(base):
    points = expand(base(), {"batch_size": [1, 2], "gamma": [0]}, control=True)
    assert [p.role for p in points] == [Role.baseline, Role.control] * 2
    assert len({p.point_id for p in points}) == 4


def test_any_field_is_an_axis_nested_ones_by_a_dotted_name(base):
    points = expand(base(), {"workload.seed": [0, 1], "top_k": [2, 4], "gamma": [1]})
    assert {(p.workload.seed, p.top_k) for p in points} == {(0, 2), (0, 4), (1, 2), (1, 4)}


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        pytest.param("batchsize", "did you mean 'batch_size'", id="misspelled"),
        pytest.param("workload.sed", "did you mean 'seed'", id="misspelled inside"),
        pytest.param("gamma.x", "gamma has no fields", id="nothing inside"),
    ],
)
def test_an_unknown_axis_names_the_nearest(base, axis, message):
    with pytest.raises(ValueError, match=message):
        expand(base(), {axis: [1]})
