"""Figures learned on 2xA800 predict 2xH800, and behave on devices that nobody published."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from analysis.published import EAGLE_MIXTRAL, ROWS, counts_named, read_rows
from moesd_dist.hardware import device_figures, hardware_named
from moesd_dist.theory.devices.calibration import (
    NAMES,
    ROW_SCATTER,
    Calibration,
    PeakRow,
    calibrate,
)
from moesd_dist.theory.devices.device import all_reduce_s
from moesd_dist.theory.devices.operations import IDEAL, forward_s
from moesd_dist.theory.devices.transfer import Setting, peak_speedup, round_seconds, speedup_curve
from moesd_dist.theory.speedup import RoundTimes, speedup

DEVICES = {
    name: device_figures(hardware_named(name))
    for name in ("A100", "A800", "H100", "H800", "H200", "B200", "L40", "L40S", "MI300X")
}
QWEN2_DRAFT = counts_named("qwen2_0_5b")
PAIRS = {
    "Qwen2-57B-A14B-Instruct": (counts_named("qwen2_57b_a14b"), QWEN2_DRAFT),
    "Mixtral-8x7B-Instruct-v0.1": (counts_named("mixtral_8x7b"), EAGLE_MIXTRAL),
}
QWEN2, MIXTRAL = PAIRS


def setting(target: str, device: str, tp_size: int = 2) -> Setting:
    pair = PAIRS[target]
    return Setting(target=pair[0], draft=pair[1], device=DEVICES[device], tp_size=tp_size)


PUBLISHED = list(csv.DictReader(ROWS.open()))


def rows(kept: Callable[[dict[str, str]], bool]) -> list[PeakRow]:
    found = zip(PUBLISHED, read_rows(), strict=True)
    return [row.peak for line, row in found if kept(line)]


A800 = rows(lambda row: row["device"] == "2xA800")
H800 = rows(lambda row: row["device"] == "2xH800")


@pytest.fixture(scope="module")
def calibrated() -> Calibration:
    return calibrate(A800)


def errors(calibration: Calibration, held_out: list[PeakRow]) -> npt.NDArray[np.float64]:
    """Predicted over measured, minus 1."""
    peaks = [calibration.peak(row.setting, gamma=row.gamma, sigma=row.sigma) for row in held_out]
    return np.array([p.speedup / row.speedup - 1 for p, row in zip(peaks, held_out, strict=True)])


def test_calibrated_on_a800_alone_the_h800_rows_are_within_ten_percent(
    calibrated: Calibration,
) -> None:
    assert len(A800) == 24
    assert len(H800) == 12
    assert np.abs(errors(calibrated, H800)).mean() <= 0.10


def test_the_interval_holds_at_least_nine_in_ten_h800_rows_and_says_something(
    calibrated: Calibration,
) -> None:
    found = [calibrated.predict(row.setting, gamma=row.gamma, sigma=row.sigma) for row in H800]
    inside = [i.low <= row.speedup <= i.high for i, row in zip(found, H800, strict=True)]
    assert np.mean(inside) >= 0.9
    assert all(1.1 < i.high / i.low < 1.5 for i in found)


def test_a_pure_roofline_is_far_too_optimistic_on_both_devices() -> None:
    for published in (A800, H800):
        ideal = [
            peak_speedup(r.setting, IDEAL, gamma=r.gamma, sigma=r.sigma).speedup / r.speedup - 1
            for r in published
        ]
        assert min(ideal) > 0.2
        assert np.mean(ideal) > 0.4


@pytest.mark.parametrize(
    ("column", "value", "bar"),
    [
        *[pytest.param("gamma", gamma, 0.08, id=f"a whole gamma: {gamma}") for gamma in "234"],
        pytest.param("dataset", "humaneval", 0.08, id="a whole dataset: code"),
        pytest.param("dataset", "mtbench", 0.08, id="a whole dataset: chat"),
        pytest.param("target", QWEN2, 0.15, id="a whole pair of models: Qwen2"),
        pytest.param("target", MIXTRAL, 0.15, id="a whole pair of models: Mixtral"),
    ],
)
def test_within_a800_a_group_left_out_is_predicted(column: str, value: str, bar: float) -> None:
    kept = rows(lambda row: row["device"] == "2xA800" and row[column] != value)
    left_out = rows(lambda row: row["device"] == "2xA800" and row[column] == value)
    assert np.abs(errors(calibrate(kept), left_out)).mean() <= bar


def test_row_scatter_is_that_of_rows_which_differ_in_sigma_only() -> None:
    groups: dict[tuple[object, ...], list[float]] = {}
    for row in A800:
        cost = np.log(row.sigma * (row.gamma + 1) / row.speedup)
        groups.setdefault((row.setting.target, row.gamma), []).append(cost)
    pooled = np.sqrt(np.mean([np.var(costs, ddof=1) for costs in groups.values()]))
    assert pooled == pytest.approx(ROW_SCATTER, abs=0.01)


def test_every_figure_lies_within_its_interval_and_one_device_says_nothing_of_clocks(
    calibrated: Calibration,
) -> None:
    for name in NAMES:
        figure = calibrated.figure(name)
        assert figure.low < figure.value < figure.high
    assert calibrated.figure("clocked_share").value == pytest.approx(0.5)


@pytest.mark.parametrize("target", [QWEN2, MIXTRAL])
@pytest.mark.parametrize(
    "order",
    [
        pytest.param(("A800", "H800", "H200", "B200"), id="overheads weigh more on faster memory"),
        pytest.param(("L40", "A800"), id="and less on slower memory"),
        pytest.param(("H800", "H100"), id="a faster link changes little"),
    ],
)
def test_peaks_fall_as_the_target_gets_faster(
    calibrated: Calibration, target: str, order: tuple[str, ...]
) -> None:
    peaks = [calibrated.peak(setting(target, name), gamma=4, sigma=0.7).speedup for name in order]
    assert all(after <= before * 1.02 for before, after in pairwise(peaks))


@pytest.mark.parametrize("tp_size", [2, 4, 8])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("target", [QWEN2, MIXTRAL])
def test_no_device_gives_an_absurd_peak(
    calibrated: Calibration, target: str, device: str, tp_size: int
) -> None:
    there = setting(target, device, tp_size)
    peak = calibrated.peak(there, gamma=3, sigma=0.8)
    roofline = peak_speedup(there, IDEAL, gamma=3, sigma=0.8)
    assert 0.7 < peak.speedup < roofline.speedup < 0.8 * 4
    assert 4 <= peak.batch_size <= 100


@pytest.mark.parametrize("device", DEVICES)
def test_speedup_rises_to_its_peak_and_falls_behind_it(
    calibrated: Calibration, device: str
) -> None:
    curve = speedup_curve(setting(QWEN2, device), calibrated.achieved, gamma=4, sigma=0.9)
    best = int(np.argmax(curve))
    assert curve[0] < 0.9 * curve[best]
    assert curve[-1] < 0.98 * curve[best]


def test_nothing_drafted_is_the_baseline(calibrated: Calibration) -> None:
    curve = speedup_curve(setting(QWEN2, "A800"), calibrated.achieved, gamma=0, sigma=1.0)
    assert curve == pytest.approx(np.ones_like(curve))


def test_speedup_is_eq_4_of_the_predicted_times(calibrated: Calibration) -> None:
    times = round_seconds(setting(QWEN2, "H200"), calibrated.achieved, gamma=3)
    one = RoundTimes(
        target_decode_s=times.target_decode_s[5],
        target_verify_s=times.target_verify_s[5],
        draft_step_s=times.draft_step_s[5],
        reject_s=times.round_overhead_s,
    )
    assert times.speedup(0.7, 3)[5] == pytest.approx(speedup(0.7, 3, one))


@pytest.mark.parametrize(
    "overhead", ["forward_overhead_s", "layer_overhead_s", "round_overhead_s", "logit_passes"]
)
def test_without_an_overhead_of_drafting_the_peak_is_higher(
    calibrated: Calibration, overhead: str
) -> None:
    without = replace(calibrated.achieved, **{overhead: 0.0})
    there = setting(QWEN2, "A800")
    peak = peak_speedup(there, without, gamma=4, sigma=0.7)
    assert peak.speedup > calibrated.peak(there, gamma=4, sigma=0.7).speedup


def test_a_small_dense_forward_at_the_peak_rates_takes_its_bytes_over_the_bandwidth() -> None:
    found = forward_s(
        QWEN2_DRAFT,
        DEVICES["A800"],
        IDEAL,
        batch_sizes=np.ones(1),
        tokens_each=1,
        context_tokens=0.0,
        tp_size=1,
    )
    assert found[0] == pytest.approx(2 * 494_032_768 / 2.039e12)


def test_a_huge_batch_at_the_peak_rates_takes_its_operations_over_the_rate() -> None:
    mixtral = PAIRS[MIXTRAL][0]
    found = forward_s(
        mixtral,
        DEVICES["A800"],
        IDEAL,
        batch_sizes=np.array([1e5]),
        tokens_each=1,
        context_tokens=0.0,
        tp_size=1,
    )
    active = mixtral.streamed_non_expert_params + 32 * 2 * mixtral.expert_params
    assert found[0] == pytest.approx(2 * active * 1e5 / 312e12)


@pytest.mark.parametrize(
    ("tp_size", "hops"), [(1, 0), (2, 2), (4, 6)], ids=["one device", "a pair", "four"]
)
def test_an_all_reduce_makes_two_rounds_of_the_ring(tp_size: int, hops: int) -> None:
    found = all_reduce_s(np.array([8e6]), DEVICES["A800"], tp_size=tp_size)
    assert found[0] == pytest.approx(hops * (5e-6 + 8e6 / tp_size / 200e9))


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        pytest.param(lambda: calibrate([]), "at least 1 row", id="nothing to learn from"),
        pytest.param(
            lambda: replace(DEVICES["A800"], flops=0.0), "flops must be positive", id="no rate"
        ),
        pytest.param(
            lambda: replace(IDEAL, memory_efficiency=1.2), r"\(0, 1\], got 1.2", id="above the peak"
        ),
        pytest.param(lambda: replace(IDEAL, clocked_share=2.0), "got 2.0", id="a share above 1"),
        pytest.param(
            lambda: replace(IDEAL, round_overhead_s=-1.0), "got -1.0", id="a negative overhead"
        ),
        pytest.param(
            lambda: all_reduce_s(np.ones(1), DEVICES["A800"], tp_size=0), "got 0", id="no device"
        ),
        pytest.param(
            lambda: peak_speedup(setting(QWEN2, "A800"), IDEAL, gamma=4, sigma=0.1),
            "sigma lies between",
            id="an impossible sigma",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_value(
    attempt: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        attempt()
