"""Where experts lie: every expert has a place, replicas are apart, loads come out evener."""

from __future__ import annotations

import numpy as np
import pytest

from moesd_dist.theory.expert_parallel.balanced import balanced, ideal, imbalance
from moesd_dist.theory.expert_parallel.placement import EMPTY, Placement, linear, round_robin


def test_consecutive_experts_share_a_rank() -> None:
    assert linear(8, ranks=4).of_rank(1).tolist() == [[2, 3]]
    assert linear(10, ranks=4).physical_to_logical.tolist() == [
        [0, 1, 2, 3, 4, 5, 6, 7, EMPTY, 8, 9, EMPTY]
    ]


def test_dealt_experts_lie_a_rank_apart() -> None:
    assert round_robin(8, ranks=4).of_rank(1).tolist() == [[1, 5]]
    assert round_robin(10, ranks=4).of_rank(3).tolist() == [[3, 7, EMPTY]]


def test_with_more_ranks_than_experts_some_hold_none() -> None:
    assert linear(2, ranks=3).physical_to_logical.tolist() == [[0, 1, EMPTY]]


def test_replicas_share_a_load() -> None:
    place = Placement(
        ranks=2, num_experts=3, physical_to_logical=np.array([[0, 1, 0, 2]], dtype=np.int64)
    )
    assert place.rank_loads([[6.0, 1.0, 2.0]]).tolist() == [[4.0, 5.0]]
    assert imbalance(place, [[6.0, 1.0, 2.0]]).tolist() == [5.0 / 4.5]


def test_a_missing_expert_and_an_odd_slot_are_refused() -> None:
    with pytest.raises(ValueError, match="layer 0 has no place for expert 2"):
        Placement(ranks=1, num_experts=3, physical_to_logical=np.array([[0, 1]], dtype=np.int64))
    with pytest.raises(ValueError, match="2 ranks do not divide 3 physical experts"):
        Placement(ranks=2, num_experts=3, physical_to_logical=np.array([[0, 1, 2]], dtype=np.int64))


def random_cases() -> list[tuple[int, int, int, int]]:
    """(seed, experts, ranks, redundant): as mixed as they come, up to replicas everywhere."""
    rng = np.random.default_rng(0)
    cases = []
    for seed in range(60):
        experts, ranks = int(rng.integers(1, 40)), int(rng.integers(1, 12))
        cases.append((seed, experts, ranks, int(rng.integers(0, experts * (ranks - 1) + 1))))
    return [*cases, (98, 256, 32, 32), (99, 64, 8, 448)]


@pytest.mark.parametrize(("seed", "experts", "ranks", "redundant"), random_cases())
def test_a_balanced_placement_keeps_its_rules(
    seed: int, experts: int, ranks: int, redundant: int
) -> None:
    loads = np.random.default_rng(seed).pareto(1.0, size=(2, experts))
    place = balanced(loads, ranks=ranks, redundant=redundant)
    assert place.physical_to_logical.shape[1] == -(-(experts + redundant) // ranks) * ranks
    for row in place.physical_to_logical:
        assert (row != EMPTY).sum() == experts + redundant
        assert set(row) - {EMPTY} == set(range(experts))
        for part in row.reshape(ranks, -1):
            held = part[part != EMPTY]
            assert len(set(held)) == len(held)
    np.testing.assert_allclose(place.rank_loads(loads).sum(axis=1), loads.sum(axis=1))
    assert (imbalance(place, loads) >= ideal(place, loads) * (1 - 1e-12)).all()
    assert (ideal(place, loads) >= 1.0).all()


@pytest.mark.parametrize("seed", range(5))
def test_skewed_loads_come_out_nearly_even(seed: int) -> None:
    loads = np.random.default_rng(seed).permuted(np.arange(1.0, 257.0) ** -0.7)[None]
    place = balanced(loads, ranks=16, redundant=32)
    assert imbalance(linear(256, ranks=16), loads) > 1.2
    assert imbalance(place, loads) < 1.02 * ideal(place, loads)


def test_the_heaviest_expert_gets_the_replicas() -> None:
    place = balanced([[9.0, 1.0, 1.0, 1.0]], ranks=3, redundant=2)
    assert np.bincount(place.physical_to_logical[0] + 1)[1:].tolist() == [3, 1, 1, 1]
    assert imbalance(place, [[9.0, 1.0, 1.0, 1.0]]).tolist() == [1.0]


def test_even_loads_need_no_replica_to_be_even() -> None:
    assert imbalance(balanced(np.ones((3, 64)), ranks=8), np.ones((3, 64))).tolist() == [1.0] * 3


def test_a_heavy_expert_bounds_what_any_placement_can_do() -> None:
    loads = [[10.0, 1.0, 1.0, 1.0]]
    place = balanced(loads, ranks=4)
    assert imbalance(place, loads).tolist() == ideal(place, loads).tolist() == [10.0 / 3.25]


def test_layers_are_placed_one_by_one_and_idle_ones_are_even() -> None:
    loads = np.array([[5.0, 4.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    place = balanced(loads, ranks=2)
    assert place.rank_loads(loads)[0].tolist() == [7.0, 7.0]
    assert imbalance(place, loads).tolist() == ideal(place, loads).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("loads", "ranks", "redundant", "message"),
    [
        pytest.param([[1.0, -1.0]], 1, 0, "loads must be finite and >= 0, got -1", id="negative"),
        pytest.param([[1.0, np.nan]], 1, 0, "loads must be finite and >= 0", id="no number"),
        pytest.param([1.0, 2.0], 1, 0, r"loads must be \[layer, expert\]", id="one axis"),
        pytest.param([[1.0, 2.0]], 0, 0, "ranks must be at least 1, got 0", id="ranks"),
        pytest.param([[1.0, 2.0]], 2, 3, "redundant must lie in 0..2, got 3", id="replicas"),
        pytest.param([[1.0, 2.0]], 2, -1, "redundant must lie in 0..2, got -1", id="fewer"),
    ],
)
def test_impossible_placements_are_refused(
    loads: list, ranks: int, redundant: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        balanced(loads, ranks=ranks, redundant=redundant)
