"""Axes become points."""

from __future__ import annotations

import pytest

from moesd_dist.records import Role
from moesd_dist.sweep.grid import Axis, axis, exclusion, expand, make_grid

BATCHES, GAMMAS = axis("batch_size", [1, 8, 64]), axis("gamma", [0, 2, 4])


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


def test_zipped_fields_step_together_and_multiply_with_the_other_axes(base):
    together = Axis(names=("batch_size", "gamma"), rows=((1, 4), (8, 2)))
    grid = make_grid(base(), [axis("top_k", [2, 4]), together])
    assert [(p.top_k, p.batch_size, p.gamma) for p in grid.points if p.gamma] == [
        (2, 1, 4),
        (2, 8, 2),
        (4, 1, 4),
        (4, 8, 2),
    ]
    assert sum(p.role is Role.baseline for p in grid.points) == 4


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        pytest.param(
            {"batch_size": [8, 64], "gamma": [4]},
            [(1, 0), (1, 2), (1, 4), (8, 0), (8, 2), (64, 0), (64, 2)],
            id="all fields have to match",
        ),
        pytest.param({"batch_size": [8, 64]}, [(1, 0), (1, 2), (1, 4)], id="baselines go as well"),
        pytest.param(
            {"gamma": [0]},
            [(b, g) for b in (1, 8, 64) for g in (0, 2, 4)],
            id="a baseline that a point needs stays",
        ),
        pytest.param(
            {"gamma": [2, 4]}, [(1, 0), (8, 0), (64, 0)], id="baselines that were asked for stay"
        ),
        pytest.param({"workload.seed": [0]}, [], id="a dotted field"),
    ],
)
def test_an_exclusion_leaves_out_what_matches_all_of_its_fields(base, wanted, left):
    rule = exclusion(base(), wanted)
    grid = make_grid(base(), [BATCHES, GAMMAS], exclude=[rule])
    assert [(p.batch_size, p.gamma) for p in grid.points] == left
    assert grid.unused == ()


def test_an_exclusion_without_effect_is_known_by_its_place(base):
    rules = [exclusion(base(), {"gamma": [4]}), exclusion(base(), {"gamma": [3]})]
    grid = make_grid(base(), [BATCHES, GAMMAS], exclude=rules)
    assert grid.unused == (1,)
    assert {p.gamma for p in grid.left_out} == {4}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        pytest.param({"gama": [4]}, "did you mean 'gamma'", id="misspelled field"),
        pytest.param({"gamma": ["four"]}, "gamma cannot be read", id="type"),
    ],
)
def test_an_exclusion_is_read_like_an_axis(base, wanted, message):
    with pytest.raises(ValueError, match=message):
        exclusion(base(), wanted)


def test_an_exclusion_knows_a_number_by_its_value_not_its_type(base):
    assert exclusion(base(), {"temperature": [0]}).matches(base())
