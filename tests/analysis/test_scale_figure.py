"""Sweeps over numbers of ranks become one picture over sequences a rank, others none."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.scale_figure import scale_figure
from moesd_dist.records import LayoutSpec, Measurement
from tests.analysis.conftest import measure, point
from tests.analysis.test_figures import size_of


def on_ranks(ranks: int, *, gamma: int = 3, **changes: object) -> list[Measurement]:
    layout = LayoutSpec(dp_size=ranks, ep_size=ranks)
    return [measure(point(b * ranks, gamma, layout=layout, **changes)) for b in (1, 4, 16)]


def test_ranks_are_lines_of_one_row(tmp_path: Path) -> None:
    both = [*on_ranks(2), *on_ranks(8)]
    assert size_of(scale_figure(both, tmp_path / "a.png")) == (1400, 600)


def test_each_gamma_and_setting_has_a_row_of_its_own(tmp_path: Path) -> None:
    many = [*on_ranks(2), *on_ranks(8), *on_ranks(2, gamma=1), *on_ranks(8, gamma=1, top_k=4)]
    assert size_of(scale_figure(many, tmp_path / "a.png"))[1] > 600


@pytest.mark.parametrize(
    "measurements",
    [
        pytest.param([], id="nothing"),
        pytest.param(on_ranks(4), id="one number of ranks"),
        pytest.param([measure(point(8, 0)), *on_ranks(2)], id="a baseline beside it"),
    ],
)
def test_there_is_nothing_to_compare_without_several_numbers_of_ranks(
    measurements: list[Measurement], tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    assert scale_figure(measurements, path) is None
    assert not path.exists()
