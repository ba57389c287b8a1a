"""Two engines' sweeps of one pair side by side: what is compared, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.report import as_text
from benchmarks.engines_agree import agreement_table, common, draw, rank_correlation, read, verdict
from moesd_dist.records import Measurement, Protocol
from moesd_dist.records.serial import to_plain
from tests.analysis.conftest import BASE, HUMP, hump, measure, point, untimed

RISING = {1: 0.5, 2: 0.6, 4: 0.7, 8: 0.8}
WORK = replace(BASE.workload, output_tokens=32)


def curve(engine: str, efficiencies: Mapping[int, float], **changes: object) -> list[Measurement]:
    """Of gamma 3, by batch size."""
    return [
        measure(point(size, 3, engine=engine, **changes), efficiency=value)
        for size, value in efficiencies.items()
    ]


def of_vllm(measured: Measurement) -> Measurement:
    return replace(measured, point=replace(measured.point, engine="vllm"))


@pytest.mark.parametrize(
    ("efficiencies", "expected"),
    [
        pytest.param({b: 0.9 * e for b, e in RISING.items()}, 1.0, id="lower everywhere"),
        pytest.param({b: e**9 for b, e in RISING.items()}, 1.0, id="bent, in the same order"),
        pytest.param({b: 1 - e for b, e in RISING.items()}, -1.0, id="falling"),
        # Spearman's 1 - 6 sum(d^2) / (n^3 - n), here with d = 0, 0, 1, -1.
        pytest.param({1: 0.5, 2: 0.6, 4: 0.8, 8: 0.7}, 0.8, id="two neighbours swapped"),
    ],
)
def test_the_order_of_the_batch_sizes_is_what_is_compared(
    efficiencies: Mapping[int, float], expected: float
) -> None:
    lines = common(curve("transformers", RISING), curve("vllm", efficiencies))
    assert rank_correlation(lines[3]) == pytest.approx(expected)


def test_two_batch_sizes_have_no_rank_correlation() -> None:
    both = {1: 0.5, 8: 0.8}
    lines = common(curve("transformers", both), curve("vllm", both))
    assert math.isnan(rank_correlation(lines[3]))
    assert verdict(lines) == ["gamma 3: 2 batch sizes in common; a rank correlation needs 3"]


def test_only_points_that_both_have_are_compared_each_gamma_by_itself() -> None:
    ours = [*hump(), untimed(64, 3)]
    theirs = [*hump(engine="vllm")[:-2], of_vllm(untimed(64, 3))]
    lines = common(ours, list(reversed(theirs)))
    assert {g: [b.vllm.point.batch_size for b in line] for g, line in lines.items()} == {
        1: list(HUMP),
        3: list(HUMP)[:-2],
    }
    for both in (both for line in lines.values() for both in line):
        assert (both.transformers.point.engine, both.vllm.point.engine) == ("transformers", "vllm")
        assert both.transformers.point.batch_size == both.vllm.point.batch_size
    assert [rank_correlation(line) for line in lines.values()] == pytest.approx([1.0, 1.0])


def test_how_an_engine_was_run_and_how_long_does_not_matter() -> None:
    how = {"engine_args": (("moe_backend", '"triton"'),), "protocol": Protocol(window_tokens=96)}
    assert len(common(curve("transformers", RISING), curve("vllm", RISING, **how))[3]) == 4


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        pytest.param(
            curve("transformers", RISING),
            curve("vllm", RISING, workload=WORK),
            r"differ in workload\.output_tokens",
            id="another workload",
        ),
        pytest.param(
            curve("transformers", {1: 0.5}),
            curve("vllm", {2: 0.5}),
            "differ in batch sizes or gammas",
            id="no batch size of both",
        ),
        pytest.param(
            curve("vllm", RISING),
            curve("vllm", RISING),
            "--transformers takes a sweep of engine=transformers, got one with points of vllm",
            id="the same engine twice",
        ),
        pytest.param(
            curve("transformers", RISING),
            [measure(point(8, 0, engine="vllm"))],
            "--vllm takes a sweep of engine=vllm, got one with no timed SD point",
            id="baselines alone",
        ),
        pytest.param(
            [*curve("transformers", RISING, top_k=4), *curve("transformers", RISING, top_k=8)],
            [*curve("vllm", RISING, top_k=4), *curve("vllm", RISING, top_k=8)],
            "both sweeps vary top_k",
            id="two settings",
        ),
    ],
)
def test_sweeps_that_cannot_be_compared_are_refused(
    ours: list[Measurement], theirs: list[Measurement], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        common(ours, theirs)


def test_the_table_has_each_figure_of_each_engine_with_its_interval() -> None:
    lines = common(curve("transformers", RISING), curve("vllm", dict.fromkeys(RISING, 0.4)))
    rows = [row for row in as_text(agreement_table(lines)).splitlines() if row.startswith("    3")]
    assert [row.split()[1] for row in rows] == ["1", "2", "4", "8"]
    assert "0.400 [0.396, 0.404]" in rows[0]
    assert "0.500 [0.495, 0.505]" in rows[0]
    assert rows[0].count("2.800") == 2  # acceptance lengths: 1 + 0.6 x 3


def test_both_engines_are_on_one_plot(tmp_path: Path) -> None:
    lines = common(hump(), hump(engine="vllm"))
    assert draw(lines, tmp_path / "engines.png").read_bytes().startswith(b"\x89PNG")


def test_a_points_json_is_read_without_a_tracker(tmp_path: Path) -> None:
    path = tmp_path / "points.json"
    path.write_text(json.dumps([to_plain(m) for m in curve("vllm", RISING)]))
    assert read(str(path), "sqlite:///nowhere.db", "none") == curve("vllm", RISING)
