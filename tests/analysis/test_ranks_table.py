"""What expert parallelism costs, in a table under the sweep's, and layouts kept apart in all others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analysis.curves import summary_curves
from analysis.figures import sweep_figure
from analysis.ranks_table import exchange_table
from analysis.report import as_text, sweep_table, verdict
from analysis.rows import rounded
from analysis.series import axes
from moesd_dist.records import LayoutSpec, Measurement
from tests.analysis.conftest import hump, measure, point
from tests.analysis.shared_experts import layouts, shared


def rows_of(measurements: list[Measurement], width: int = 120) -> list[list[str]]:
    table = exchange_table(measurements)
    assert table is not None
    lines = [line for line in as_text(table, width).splitlines() if re.match(r"^ *\d+ ", line)]
    return [re.split(r"  +", line.strip()) for line in lines]


def test_the_cells_of_a_point() -> None:
    (row,) = rows_of([shared(8, 3, 4)])
    # Ranks have 1, 0.95, 0.9 and 0.85 of the busiest one's load: 1 / 0.925; decoding half the skew.
    assert row == [
        "4", "8", "3", "1.04->1.08", "20.0->20.0", "20%->20%", "7%->9%", "0.54", "0.23",
        "0.07", "0.11", "0.03", "0.11",
    ]  # fmt: skip


def test_rows_are_sorted_by_how_many_ranks_share_experts() -> None:
    assert [row[:3] for row in rows_of(layouts())] == [
        [ep, b, gamma] for ep in "124" for gamma in "13" for b in ("2", "8", "32")
    ]


def test_a_rank_alone_has_no_exchange_but_the_same_losses() -> None:
    rows = rows_of([shared(8, 3, 1), shared(8, 3, 2)])
    assert rows[0] == [
        "1", "8", "3", "-", "-", "-", "-", "0.63", "0.32", "-", "-", "-", "0.32",
    ]  # fmt: skip


def test_baselines_alone_have_one_figure_each_and_no_losses() -> None:
    (row,) = rows_of([shared(8, 0, 4)])
    assert row[3:] == ["1.08", "20.0", "20%", "9%", *"------"]


@pytest.mark.parametrize("width", [120, 160])
def test_nothing_is_cut_off(width: int) -> None:
    several = [
        shared(2048, 3, 4, expert_placement=where, all2all_backend=how)
        for where in ("linear", "round_robin")
        for how in ("", "allgather_reducescatter")
    ]
    table = exchange_table(several)
    assert table is not None
    text = as_text(table, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert "default" in text
    assert text.splitlines()[2].endswith("rest")  # the last column


@pytest.mark.parametrize(
    "measurements",
    [
        pytest.param([], id="nothing"),
        pytest.param(hump(), id="ranks that nobody looked into"),
        pytest.param([shared(8, 3, 1)], id="ranks that are alone"),
        pytest.param([measure(point(8, 3, layout=LayoutSpec(ep_size=4)))], id="another engine's"),
    ],
)
def test_without_an_exchange_there_is_no_table(measurements: list[Measurement]) -> None:
    assert exchange_table(measurements) is None


def test_the_sweeps_table_says_how_many_ranks_share_experts_and_sorts_by_it() -> None:
    text = as_text(sweep_table(layouts()), 120)
    assert "EP   B  gamma" in text
    cells = [line.split()[:3] for line in text.splitlines() if re.match(r"^ +\d+ +\d+ ", line)]
    assert cells == [[ep, b, g] for ep in "124" for g in "13" for b in ("2", "8", "32")]
    assert "experts on 1 / 2 / 4 ranks" in " ".join(text.split())  # titles are wrapped
    one = as_text(sweep_table([shared(8, 3, 4)]), 120)
    assert "EP" not in one
    assert "experts on 4 ranks" in " ".join(one.split())
    assert "ranks" not in as_text(sweep_table(hump()), 120)


def test_of_many_points_the_best_are_shown() -> None:
    many = [shared(b, g, 2) for b in range(1, 211) for g in (1, 3)]
    assert [row[2] for row in rows_of(many)] == ["1", "3"]


def test_layouts_are_told_apart_by_ranks_first() -> None:
    """They differ in dp_size, too, which says nothing more."""
    assert axes(layouts()) == ["layout.ep_size"]
    nodes = [shared(8, 3, 4), shared(8, 3, 4, nodes=2), shared(8, 3, 2)]
    assert axes(nodes) == ["layout.ep_size", "layout.nodes"]


def test_where_loads_lie_is_no_setting() -> None:
    both = [shared(8, 3, 4, loads_path=path, loads_digest="c0ffee") for path in ("/a", "/b")]
    assert axes(both) == []


def test_sentences_curves_and_panels_do_not_mix_layouts(tmp_path: Path) -> None:
    found = layouts()
    assert [s.split(":")[0] for s in verdict(found)] == [
        f"gamma={g} (ep_size {ep})" for ep in "412" for g in "13"
    ]
    curves = summary_curves(found)
    names = {n for n in curves if n.startswith("speedup_gamma_3")}
    assert names == {f"speedup_gamma_3_ep_size_{ep}" for ep in (1, 2, 4)}
    assert all(list(curve) == [2, 8, 32] for curve in curves.values())
    assert curves["load_imbalance_gamma_3_ep_size_4"][8] == pytest.approx(1 / 0.925, rel=1e-3)
    assert "load_imbalance_gamma_3_ep_size_1" not in curves
    one, three = tmp_path / "one.png", tmp_path / "three.png"
    sweep_figure([m for m in found if m.point.layout.ep_size == 4], one)
    sweep_figure(found, three)
    assert _height(three) > 2 * _height(one)


def _height(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[20:24], "big")


def test_a_sentence_says_what_target_efficiency_is_lost_to() -> None:
    (sentence,) = verdict([shared(8, 3, 4)])
    assert sentence.endswith(
        "; on 4 ranks 1/TE - 1 is 0.54: experts 0.23, imbalance 0.07, communication 0.11, "
        "packing 0.03, rest 0.11."
    )
    assert "ranks" not in " ".join(verdict([shared(8, 3, 1), measure(point(8, 3))]))


@pytest.mark.parametrize(
    ("loss", "text"),
    [(-0.004, "0.00"), (0.004, "0.00"), (-0.74, "-0.74"), (1.999, "2.00")],
)
def test_next_to_nothing_has_no_sign(loss: float, text: str) -> None:
    assert rounded(loss) == text
