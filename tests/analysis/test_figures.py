"""Figures are drawn for every kind of sweep, or politely not at all."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from analysis.experts import counts
from analysis.figures import experts_figure, sweep_figure
from moesd_dist.records import Measurement
from tests.analysis.conftest import HUMP, control, hump, measure, point, untimed


def size_of(path: Path | None) -> tuple[int, int]:
    """Width and height from the header of a PNG file."""
    assert path is not None
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", head[16:])
    return width, height


def test_a_sweep_is_one_row_of_panels(sweep: list[Measurement], tmp_path: Path) -> None:
    assert size_of(sweep_figure([*sweep, control(8)], tmp_path / "speedup.png")) == (1400, 600)
    assert size_of(experts_figure(sweep, tmp_path / "experts.png")) == (1400, 600)


def test_each_setting_has_a_row(tmp_path: Path) -> None:
    both = [*hump(top_k=4), *hump(top_k=8)]
    assert size_of(sweep_figure(both, tmp_path / "a.png"))[1] > 600
    assert size_of(experts_figure(both, tmp_path / "b.png"))[1] > 600


@pytest.mark.parametrize(
    "measurements",
    [
        pytest.param([measure(point(8, 3), repeats=1)], id="one point of one repeat"),
        pytest.param([measure(point(b, 3), experts=0) for b in HUMP], id="a dense target"),
        pytest.param([measure(point(b, 3)) for b in range(1, 101, 4)], id="many batch sizes"),
        pytest.param([measure(point(8, g)) for g in range(1, 9)], id="more gammas than colours"),
    ],
)
def test_odd_sweeps_are_drawn(measurements: list[Measurement], tmp_path: Path) -> None:
    assert size_of(sweep_figure(measurements, tmp_path / "speedup.png")) == (1400, 600)


@pytest.mark.parametrize(
    "measurements",
    [
        pytest.param([], id="nothing"),
        pytest.param([measure(point(8, 0))], id="baselines alone"),
        pytest.param([control(8)], id="controls alone"),
        pytest.param([untimed(8, 0), untimed(8, 3)], id="untimed points alone"),
        pytest.param([measure(point(8, 0)), untimed(8, 3)], id="untimed SD beside a baseline"),
    ],
)
def test_without_sd_there_is_no_speedup_to_draw(
    measurements: list[Measurement], tmp_path: Path
) -> None:
    assert sweep_figure(measurements, tmp_path / "speedup.png") is None
    assert not (tmp_path / "speedup.png").exists()


def test_untimed_points_are_left_out_of_the_speedups_and_kept_among_the_experts(
    tmp_path: Path,
) -> None:
    mixed = [*hump(), untimed(8, 0), untimed(8, 3)]
    assert size_of(sweep_figure(mixed, tmp_path / "speedup.png")) == (1400, 600)
    assert size_of(experts_figure([untimed(8, 3)], tmp_path / "experts.png")) == (1400, 600)


def test_a_dense_target_has_no_experts_to_draw(tmp_path: Path) -> None:
    assert experts_figure([measure(point(8, 3), experts=0)], tmp_path / "experts.png") is None


def test_baselines_alone_still_show_their_experts(tmp_path: Path) -> None:
    assert size_of(experts_figure([measure(point(8, 0))], tmp_path / "e.png")) == (1400, 600)


def test_verification_is_counted_at_its_own_gate_tokens() -> None:
    found = counts([measure(point(8, 3)), measure(point(2, 3))])
    assert list(found) == [0, 3]
    assert list(found[0]) == [2, 8]
    assert list(found[3]) == [8, 32]
    assert found[0][8] == pytest.approx(found[3][8])
