"""The table and its labels, as they stand in a log."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from analysis.report import as_text, labels, sweep_table
from moesd_dist.records import (
    DraftMethod,
    Failed,
    Infeasible,
    Measurement,
    ModelSource,
    ModelSpec,
    Outcome,
    SdSpec,
    SweepPoint,
)
from tests.analysis.conftest import BASE, SD, control, hump, measure, point, untimed

SHAPE = ModelSpec(name="qwen3_30b_a3b", source=ModelSource.shape)
COIN = SdSpec(method=DraftMethod.ngram, synthetic_acceptance=(0.8,))
ORACLE = SdSpec(method=DraftMethod.oracle, alpha=0.8)
FIXED = SdSpec(method=DraftMethod.fixed)
RANDOM = replace(BASE.workload, name="random")


def rows_of(text: str) -> list[list[str]]:
    """Cells of the lines that begin with a number, as `B gamma ...` do."""
    lines = [line for line in text.splitlines() if re.match(r"^ *\d+ ", line)]
    return [re.split(r"  +", line.strip()) for line in lines]


def test_each_sd_point_has_one_row_and_baselines_have_none(sweep: list[Measurement]) -> None:
    rows = rows_of(as_text(sweep_table(sweep)))
    assert [row[:2] for row in rows] == [
        [str(b), g] for g in ("1", "3") for b in (1, 2, 4, 8, 16, 32)
    ]


def test_the_cells_of_a_point(sweep: list[Measurement]) -> None:
    row = rows_of(as_text(sweep_table(sweep)))[-1]
    assert row == ["32", "3", "2.80", "0.700", "0.436", "1.15 [1.14, 1.16]", "56.8 -> 57.6"]


def test_the_best_speedup_of_each_gamma_is_marked_in_plain_text(sweep: list[Measurement]) -> None:
    marked = [row[:2] for row in rows_of(as_text(sweep_table(sweep))) if "*" in " ".join(row)]
    assert marked == [["8", "1"], ["8", "3"]]


@pytest.mark.parametrize("width", [100, 200])
def test_nothing_is_cut_off(width: int) -> None:
    flagged = measure(point(64, 1), flags=("foreign_load",))
    text = as_text(sweep_table([*hump(), control(8), flagged]), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert "foreign load" in text
    assert "A/A" in text


@pytest.mark.parametrize("width", [100, 200])
def test_columns_of_axes_appear_only_if_they_vary(width: int) -> None:
    several = [
        m
        for top_k in (4, 16)
        for temperature in (0.0, 1.0)
        for name in ("stdlib_code", "stdlib_prose")
        for m in hump(
            top_k=top_k,
            temperature=temperature,
            workload=replace(BASE.workload, name=name),
        )
    ]
    several[7] = replace(several[7], flags=("foreign_load",))
    text = as_text(sweep_table(several), width)
    assert "top_k" in text
    assert "temp" in text
    assert "work-" in text
    assert "foreign" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert "top_k" not in as_text(sweep_table(hump(top_k=4)), width)


def test_a_log_has_no_colour_codes(sweep: list[Measurement]) -> None:
    assert "\x1b" not in as_text(sweep_table(sweep))


def test_a_single_repeat_shows_no_interval() -> None:
    text = as_text(sweep_table([measure(point(8, 3), repeats=1)]))
    assert rows_of(text)[0][5] == "2.02"
    assert "no interval" in text


def test_a_dense_target_has_no_column_of_experts() -> None:
    assert "experts" not in as_text(sweep_table([measure(point(8, 3), experts=0)]))


def test_baselines_alone_show_throughput_and_decoding_time() -> None:
    text = as_text(sweep_table([measure(point(b, 0), efficiency=1.0) for b in (1, 4)]))
    assert rows_of(text) == [["1", "100.0", "10.000", "7.2"], ["4", "400.0", "10.000", "23.8"]]
    assert "speedup" not in text


def test_points_without_a_measurement_keep_their_row() -> None:
    missing: list[Outcome] = [
        Infeasible(point=point(64, 3), reason="too large"),
        Failed(point=point(32, 3), reason="it broke"),
    ]
    rows = rows_of(as_text(sweep_table([measure(point(8, 3)), *missing])))
    assert [(row[0], row[-1]) for row in rows[1:]] == [("32", "failed"), ("64", "infeasible")]


def test_a_sweep_in_which_everything_failed_still_has_a_table() -> None:
    text = as_text(sweep_table([Failed(point=point(8, 3), reason="it broke")]))
    assert "failed" in text


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        pytest.param(point(8, 3), [], id="trained weights and real text"),
        pytest.param(point(8, 3, engine="analytic"), ["SIMULATED"], id="the analytic engine"),
        pytest.param(point(8, 3, target=SHAPE), ["RANDOM WEIGHTS"], id="a shape"),
        pytest.param(
            point(8, 3, sd=replace(SD, draft=SHAPE)), ["RANDOM WEIGHTS"], id="a shape as the draft"
        ),
        pytest.param(point(8, 3, sd=COIN), ["SYNTHETIC ACCEPTANCE"], id="acceptance by coin"),
        pytest.param(
            point(8, 3, sd=ORACLE), ["CONTROLLED ACCEPTANCE"], id="drafts that replay the reference"
        ),
        pytest.param(
            point(8, 3, sd=FIXED), ["CONTROLLED ACCEPTANCE"], id="drafts that cost nothing"
        ),
        pytest.param(point(8, 3, workload=RANDOM), ["RANDOM PROMPTS"], id="random tokens"),
    ],
)
def test_loud_labels(of: SweepPoint, expected: list[str]) -> None:
    found = [measure(point(1, 0)), measure(of)]
    assert labels(found) == expected
    text = as_text(sweep_table(found))
    assert all(f"*** {name} ***" in text for name in expected)


def test_the_title_names_the_rate_of_an_oracle() -> None:
    assert "draft oracle of alpha 0.8," in as_text(sweep_table([measure(point(8, 3, sd=ORACLE))]))


def test_an_untimed_point_shows_its_counts_and_dashes() -> None:
    rows = rows_of(as_text(sweep_table([measure(point(8, 3)), untimed(8), untimed(16)])))
    assert rows[0][3:] == [
        "2.80",
        "0.700",
        "0.800",
        "2.00 [1.98, 2.02]",
        "37.8 -> 56.8",
    ]
    assert rows[1][-6:] == ["2.80", "0.700", "-", "-", "37.8 -> 56.8", "cpu fixes, untimed"]


def test_a_wholly_untimed_sweep_has_no_columns_of_seconds() -> None:
    baselines = [untimed(b, 0) for b in (8, 16)]
    text = as_text(sweep_table([*baselines, *(untimed(b, 3) for b in (8, 16))]))
    assert rows_of(text)[0] == ["8", "3", "2.80", "0.700", "37.8 -> 56.8", "cpu fixes, untimed"]
    assert "speedup" not in text
    assert "*" not in text
    assert "decoding -> verification" in " ".join(text.split())
    assert rows_of(as_text(sweep_table(baselines)))[0] == ["8", "37.8", "cpu fixes, untimed"]


def test_a_point_is_shown_as_untimed_even_where_no_flag_says_so() -> None:
    text = as_text(sweep_table([replace(untimed(), flags=())]))
    assert rows_of(text)[0][-1] == "untimed"


def test_the_title_names_what_was_measured_and_where(sweep: list[Measurement]) -> None:
    text = as_text(sweep_table(sweep))
    assert "target embedded, draft embedded_draft, workload stdlib_code" in text
    assert "engine transformers, host a-host (cpu, a-cpu, threads 1)" in text
