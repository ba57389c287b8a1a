"""Where the time of ranks goes is drawn where it is known, or politely not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.ranks_figure import ranks_figure
from moesd_dist.records import Measurement
from tests.analysis.conftest import hump, measure, point, untimed
from tests.analysis.shared_experts import layouts, shared
from tests.analysis.test_figures import size_of


@pytest.mark.parametrize(
    "measurements",
    [
        pytest.param([shared(8, 3, 4)], id="one point"),
        pytest.param([shared(b, g, 4) for b in range(1, 40) for g in (1, 3)], id="many points"),
        pytest.param([shared(8, 0, 2)], id="a baseline alone"),
        pytest.param([shared(8, 3, 320)], id="hundreds of ranks"),
        pytest.param([shared(8, 0, 4), untimed(8, 3)], id="beside an untimed point"),
    ],
)
def test_a_setting_is_one_row_of_panels(measurements: list[Measurement], tmp_path: Path) -> None:
    assert size_of(ranks_figure(measurements, tmp_path / "ranks.png")) == (1400, 600)


def test_each_layout_has_a_row(tmp_path: Path) -> None:
    assert size_of(ranks_figure(layouts(), tmp_path / "ranks.png"))[1] > 1200


def test_a_page_has_an_end(tmp_path: Path) -> None:
    many = [shared(8, 3, ranks) for ranks in range(2, 42, 2)]
    assert size_of(ranks_figure(many, tmp_path / "ranks.png"))[1] < 5000


@pytest.mark.parametrize(
    "measurements",
    [
        pytest.param([], id="nothing"),
        pytest.param(hump(), id="ranks that nobody looked into"),
        pytest.param([shared(8, 3, 1)], id="ranks that are alone"),
        pytest.param([measure(point(8, 3)), untimed(8, 3)], id="untimed ranks"),
    ],
)
def test_without_an_exchange_there_is_nothing_to_draw(
    measurements: list[Measurement], tmp_path: Path
) -> None:
    assert ranks_figure(measurements, tmp_path / "ranks.png") is None
    assert not (tmp_path / "ranks.png").exists()
