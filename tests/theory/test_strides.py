"""The strided choice of points, against all 21 subsets that the paper prints."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from moesd_dist.theory.moesd.points import Points
from moesd_dist.theory.moesd.strides import (
    PAPER_GRID,
    evenly_spaced,
    grid_order,
    stride_for,
    strided,
    taken,
)

DATA = Path(__file__).parents[1] / "data" / "moesd_fit_subsets.csv"
SUBSETS = [
    pytest.param(
        int(row["m"]),
        int(row["stride"]),
        tuple(map(int, row["batch_sizes_involved"].split())),
        id=f"{row['m']} points",
    )
    for row in csv.DictReader(DATA.read_text().splitlines())
]


def paper_points(order: np.ndarray) -> Points:
    top_k, gamma, batch_size = np.array(PAPER_GRID)[order].T
    sigma = np.full(order.size, 0.9)
    return Points(
        batch_size=batch_size,
        gamma=gamma,
        top_k=top_k,
        sigma=sigma,
        num_experts=64,
        ridge_point=156.0,
    )


IN_ORDER = paper_points(np.arange(len(PAPER_GRID)))


def test_the_paper_prints_twenty_one_subsets_of_228_points() -> None:
    assert len(SUBSETS) == 21
    assert len(PAPER_GRID) == len(set(PAPER_GRID)) == 228


@pytest.mark.parametrize(("count", "stride", "batch_sizes"), SUBSETS)
def test_a_stride_takes_the_papers_points(
    count: int, stride: int, batch_sizes: tuple[int, ...]
) -> None:
    chosen = strided(IN_ORDER, stride=stride)
    met = np.unique(np.asarray(IN_ORDER.batch_size)[chosen])
    assert (chosen.size, tuple(met)) == (count, batch_sizes)
    assert stride_for(count, len(PAPER_GRID)) == stride


def test_shuffled_points_give_the_same_subset() -> None:
    order = np.random.default_rng(3).permutation(len(PAPER_GRID))
    chosen = order[strided(paper_points(order), stride=11)]
    assert chosen.tolist() == strided(IN_ORDER, stride=11).tolist()


@pytest.mark.parametrize("total", [1, 2, 9, 100, 228])
def test_the_stride_is_the_largest_that_takes_so_many(total: int) -> None:
    possible = {taken(stride, total): stride for stride in range(1, total + 1)}
    assert {count: stride_for(count, total) for count in possible} == possible


def test_a_number_that_no_stride_takes_names_its_neighbours() -> None:
    with pytest.raises(ValueError, match="no stride takes 20 of 228 points, use 19 or 21"):
        stride_for(20, 228)


@pytest.mark.parametrize("count", [0, 229])
def test_a_number_beyond_the_grid_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"count must lie in 1..228, got {count}"):
        stride_for(count, 228)


def test_a_stride_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        strided(IN_ORDER, stride=0)


@pytest.mark.parametrize(
    ("count", "total", "places"),
    [
        pytest.param(4, 12, [0, 3, 6, 9], id="a whole stride"),
        pytest.param(5, 12, [0, 2, 4, 7, 9], id="no whole stride"),
        pytest.param(1, 12, [0], id="one is the first"),
        pytest.param(3, 3, [0, 1, 2], id="all"),
    ],
)
def test_evenly_spaced_places(count: int, total: int, places: list[int]) -> None:
    assert evenly_spaced(count, total).tolist() == places


@pytest.mark.parametrize("stride", [1, 2, 4, 5, 8, 10, 20])
def test_where_a_stride_divides_the_grid_both_rules_agree(stride: int) -> None:
    assert evenly_spaced(80 // stride, 80).tolist() == list(range(0, 80, stride))


def test_more_places_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match=r"count must lie in 1\.\.80, got 81"):
        evenly_spaced(81, 80)


def test_points_are_ordered_by_top_k_then_gamma_then_batch() -> None:
    order = np.random.default_rng(5).permutation(len(PAPER_GRID))
    points = paper_points(order)
    found = order[grid_order(points.batch_size, points.gamma, points.top_k)]
    assert found.tolist() == list(range(len(PAPER_GRID)))
