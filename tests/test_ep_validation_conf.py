"""What `+exp=ep_validation` and `sweep.ranks` make of a configuration."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from moesd_dist import build, config, specs
from moesd_dist.config import CONF, Conf
from moesd_dist.one_sweep import Job, points_of
from moesd_dist.records import LayoutSpec, SweepPoint
from moesd_dist.sweep.validation.shares import is_shared
from moesd_dist.sweep.validation.staged import StagedPlan


@pytest.fixture
def conf() -> Callable[..., Conf]:
    def make(*overrides: str) -> Conf:
        GlobalHydra.instance().clear()
        config.register()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return specs.conf_from(compose("config", overrides=[*overrides, "output=x"]))

    return make


def points(of: Conf) -> list[SweepPoint]:
    return points_of([Job(conf=of)])


def layouts(of: Conf) -> set[tuple[int, int, int]]:
    return {(p.layout.dp_size, p.layout.ep_size, p.layout.nodes) for p in points(of)}


def test_the_experiment_has_one_rank_at_every_batch_and_at_every_share(conf):
    found = points(conf("+exp=ep_validation"))
    single = {p.batch_size for p in found if not is_shared(p)}
    assert single == {1, 2, 4, 8, 16, 32, 64}
    shared = {(p.layout.ep_size, p.batch_size) for p in found if is_shared(p)}
    assert shared == {(r, b) for r in (2, 4) for b in (4, 16, 64)}
    assert {p.gamma for p in found} == {0, 1, 3}


def test_the_points_of_one_rank_are_those_of_any_sweep(conf):
    """So that a validation goes on from what was measured before, and others from it."""
    plain = conf("sweep=batch_sizes", "sweep.batch_size=[4]", "sweep.gamma=[1,3]", "sweep.repeats=5", "sweep.window_tokens=192")  # fmt: skip
    validated = {p.point_id for p in points(conf("+exp=ep_validation"))}
    assert {p.point_id for p in points(plain)} <= validated


def test_ranks_are_an_axis_of_any_sweep(conf):
    assert layouts(conf("sweep.ranks=[1,2,4]")) == {(1, 1, 1), (2, 2, 1), (4, 4, 1)}


def test_ranks_spread_over_as_many_nodes_as_divide_them(conf):
    many = conf("+exp=ep_validation", "layout.nodes=2", "sweep.ranks=[1,2,3,4]", "sweep.batch_size=[12]")  # fmt: skip
    assert layouts(many) == {(1, 1, 1), (2, 2, 2), (3, 3, 1), (4, 4, 2)}


def test_settings_of_the_layout_are_for_several_ranks_alone(conf):
    dealt = conf("sweep.ranks=[1,2]", "layout.expert_parallel=true", "layout.expert_placement=round_robin")  # fmt: skip
    found = {p.layout for p in points(dealt)}
    shared = LayoutSpec(dp_size=2, ep_size=2, expert_placement="round_robin")
    assert found == {LayoutSpec(), shared}


def test_ranks_and_an_axis_of_layouts_are_not_both_taken(conf):
    with pytest.raises(ValueError, match=r"sweep.ranks makes the layouts, and layout.nodes is"):
        points(conf("sweep.ranks=[2]", "+sweep.axes={layout.nodes: [1]}"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        pytest.param("launcher=inline", "use launcher=ray", id="inline"),
        pytest.param("sweep=adaptive", "leave one away", id="adaptive"),
        pytest.param("sweep.ranks=[1]", "needs points over several ranks", id="one rank"),
    ],
)
def test_what_cannot_be_staged_is_refused_before_anything_is_spent(conf, override, message):
    given = conf("+exp=ep_validation", override)
    with pytest.raises(ValueError, match=message):
        build.make_plan(given, points(given))


def test_a_validation_is_staged_and_an_ordinary_sweep_is_not(conf):
    given, plain = conf("+exp=ep_validation"), conf()
    assert isinstance(build.make_plan(given, points(given)), StagedPlan)
    assert not isinstance(build.make_plan(plain, points(plain)), StagedPlan)


def test_a_tolerance_is_not_negative(conf):
    with pytest.raises(ValueError, match=r"validation\.speedup must be at least 0"):
        conf("+exp=ep_validation", "validation.speedup=-0.1")


def test_ranks_are_counted_from_one(conf):
    with pytest.raises(ValueError, match=r"sweep\.ranks must be at least 1"):
        conf("sweep.ranks=[0,2]")
