"""The committed quickstart as arrays, and what must not be fitted together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moesd_dist.models.counts import counts_of
from moesd_dist.records import LayoutSpec, Measurement
from moesd_dist.records.serial import measurement_from_plain
from moesd_dist.sweep.adaptive.observations import apart, step_data
from moesd_dist.sweep.statistics import speedup
from moesd_dist.theory.steps.fit import fit_steps
from moesd_dist.theory.steps.model import Grid
from moesd_dist.theory.steps.prediction import predict

RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.fixture(scope="module")
def quickstart() -> list[Measurement]:
    text = (RESULTS / "quickstart_cpu" / "points.json").read_text()
    return [measurement_from_plain(plain) for plain in json.loads(text)]


def sd_points(measured: list[Measurement]) -> list[Measurement]:
    return [m for m in measured if m.point.gamma]


def test_baselines_are_no_points_of_their_own(quickstart: list[Measurement]) -> None:
    data = step_data(quickstart)
    assert len(data) == 14
    assert sorted(set(data.gamma)) == [1, 3]
    assert data.top_k.tolist() == [8.0] * 14


def test_points_of_one_batch_size_share_their_baseline(quickstart: list[Measurement]) -> None:
    data = step_data(quickstart)
    assert len(np.unique(data.group)) == len(data.baselines) == 7
    for label in np.unique(data.group):
        assert len(set(data.target_decode_s[data.group == label])) == 1


def test_ratios_are_those_of_the_measurement(quickstart: list[Measurement]) -> None:
    data, points = step_data(quickstart), sd_points(quickstart)
    np.testing.assert_allclose(data.sigma, [m.sigma for m in points])
    np.testing.assert_allclose(data.speedup, [speedup(m) for m in points])
    np.testing.assert_allclose(data.verify_experts, [m.activated_experts for m in points])
    assert (data.accepted[data.gamma == 1, 1:] == 0).all()


def test_the_measured_seconds_explain_the_measured_speedup(quickstart: list[Measurement]) -> None:
    data = step_data(quickstart)
    step_s = data.target_decode_s + data.baseline_reject_s
    round_s = data.target_verify_s + data.gamma * data.draft_step_s + data.reject_s
    explained = data.acceptance_length * step_s / round_s
    assert np.abs(explained / data.speedup - 1).max() < 0.03


def test_a_fit_of_the_quickstart_predicts_the_other_grid_within_its_noise(
    quickstart: list[Measurement],
) -> None:
    """Two sweeps of one evening: fitted on 14 points, judged on 80 others, sigma given."""
    text = (RESULTS / "full_grid_cpu" / "points.json").read_text()
    grid = step_data([measurement_from_plain(plain) for plain in json.loads(text)])
    first = sd_points(quickstart)[0].point
    assert first.sd.draft is not None
    fit = fit_steps(
        step_data(quickstart), target=counts_of(first.target), draft=counts_of(first.sd.draft)
    )
    found = predict(
        fit,
        Grid(
            batch_size=grid.batch_size,
            gamma=grid.gamma,
            top_k=grid.top_k,
            context_tokens=grid.context_tokens,
        ),
        sigma=grid.sigma,
    )
    own = grid.top_k == 8  # the quickstart never saw another
    assert np.abs(found.speedup / grid.speedup - 1)[own].mean() < 0.06


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param("engines", {"engine": "analytic"}, id="simulated and measured"),
        pytest.param("layouts", {"layout": LayoutSpec(tp_size=2)}, id="layouts"),
        pytest.param("devices", {"hardware": "H200"}, id="devices"),
    ],
)
def test_what_differs_is_named(
    quickstart: list[Measurement], name: str, change: dict[str, object]
) -> None:
    points = sd_points(quickstart)
    mixed = [*points, replace(points[0], point=replace(points[0].point, **change))]  # type: ignore[arg-type]
    assert apart(points) == []
    assert apart(mixed) == [name]
    with pytest.raises(ValueError, match=f"several {name} cannot be fitted as one"):
        step_data(mixed)


def test_baselines_alone_are_refused(quickstart: list[Measurement]) -> None:
    with pytest.raises(ValueError, match="a fit needs SD points, got 7 measurements without any"):
        step_data([m for m in quickstart if not m.point.gamma])


@pytest.mark.parametrize("fixed", [1, 14], ids=["one of them", "all of them"])
def test_untimed_points_are_refused_in_one_line(quickstart: list[Measurement], fixed: int) -> None:
    points = sd_points(quickstart)
    layout = LayoutSpec(ep_size=2)
    repaired = [replace(m, point=replace(m.point, cpu_fixes=True, layout=layout)) for m in points]
    with pytest.raises(
        ValueError, match=f"untimed points have no speedup .* {fixed} of 14 are"
    ) as e:
        step_data([*repaired[:fixed], *points[fixed:]])
    assert "\n" not in str(e.value)
