"""Axes that vary are found, those that repeat each other once; curves are named by them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analysis.curves import summary_curves
from analysis.series import axes, by_setting
from moesd_dist.records import DraftMethod, Measurement, ModelSource, ModelSpec, SdSpec
from tests.analysis.conftest import BASE, HUMP, control, hump, measure, point, untimed

LARGE = ModelSpec(name="large", source=ModelSource.checkpoint, location="/somewhere", seed=3)
NGRAM = SdSpec(method=DraftMethod.ngram)


def test_batch_size_gamma_and_role_are_no_settings(sweep: list[Measurement]) -> None:
    assert axes([*sweep, control(8)]) == []
    assert list(by_setting(sweep)) == [()]


def test_fields_that_change_together_are_one_axis() -> None:
    assert axes([*hump(), *hump(target=LARGE)]) == ["target.name"]


def test_any_field_can_be_an_axis() -> None:
    other = hump(workload=replace(BASE.workload, seed=1))
    assert list(by_setting([*hump(), *other])) == [
        (("workload_seed", "0"),),
        (("workload_seed", "1"),),
    ]


def test_draft_methods_share_their_baseline() -> None:
    both = [measure(point(8, 0)), measure(point(8, 3)), measure(point(8, 3, sd=NGRAM))]
    sizes = {place: len(members) for place, members in by_setting(both).items()}
    assert sizes == {(): 1, (("method", "draft_model"),): 1, (("method", "ngram"),): 1}


def test_curves_run_over_the_batch_size(sweep: list[Measurement]) -> None:
    curves = summary_curves(sweep)
    per_gamma = ("speedup", "target_efficiency", "acceptance_length", "tokens_per_s")
    names = {f"{name}_gamma_{gamma}" for name in per_gamma for gamma in (1, 3)}
    assert set(curves) == names | {"tokens_per_s_baseline"}
    assert all(list(curve) == list(HUMP) for curve in curves.values())
    assert curves["acceptance_length_gamma_3"][8] == pytest.approx(2.8)
    assert curves["tokens_per_s_baseline"][8] == pytest.approx(800)
    assert curves["target_efficiency_gamma_3"][8] == pytest.approx(0.85 / 1.375, rel=1e-3)


def test_another_axis_is_appended_to_the_name() -> None:
    both = [*hump(top_k=4, temperature=0.0), *hump(top_k=None, temperature=0.5)]
    names = [name for name in summary_curves(both) if name.startswith("speedup_gamma_3")]
    assert names == [
        "speedup_gamma_3_temperature_0_top_k_4",
        "speedup_gamma_3_temperature_0.5_top_k_model",
    ]


def test_a_control_has_a_curve_of_its_own() -> None:
    assert summary_curves([control(8)])["speedup_control"] == {8: pytest.approx(1.0, abs=0.01)}


def test_names_hold_only_what_every_tracker_takes() -> None:
    odd = [*hump(), *hump(target=replace(LARGE, name="org/model (a)"))]
    assert "speedup_gamma_1_target_org_model_a_" in summary_curves(odd)


def test_untimed_points_have_a_curve_of_acceptance_alone() -> None:
    curves = summary_curves([untimed(8, 0), untimed(8, 3), untimed(16, 3)])
    assert curves == {"acceptance_length_gamma_3": {8: 2.8, 16: pytest.approx(2.8)}}


def test_untimed_points_leave_the_curves_of_timed_ones_alone() -> None:
    mixed = summary_curves([*hump(), untimed(8, 0), untimed(8, 3)])
    timed = {name: c for name, c in mixed.items() if name.endswith("ep_size_1")}
    assert [name for name in mixed if name not in timed] == ["acceptance_length_gamma_3_ep_size_2"]
    assert list(timed.values()) == list(summary_curves(hump()).values())
