"""Target efficiency and speedup taken apart: parts add up, in no order, to what was put in."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from moesd_dist.theory.expert_parallel.collectives import Link, Links
from moesd_dist.theory.expert_parallel.decomposition import efficiency_parts, round_parts
from moesd_dist.theory.expert_parallel.step import (
    EpGrid,
    EpModel,
    EpRoundSeconds,
    EpSeconds,
    Packing,
)
from moesd_dist.theory.speedup import RoundTimes, decompose
from tests.theory.known_steps import MODEL

EP = EpModel(
    step=MODEL,
    cost=Links(
        intra=Link(latency_s=2e-5, bytes_per_s=5e9),
        inter=Link(latency_s=5e-5, bytes_per_s=1e9),
        ranks_per_node=2,
    ),
    packing=Packing(layer_s=1e-4, row_s=1e-6),
)
TIMES: EpRoundSeconds = EP.round_seconds(
    EpGrid(
        batch_size=np.array([1, 4, 16, 64])[:, None, None],
        gamma=np.array([1, 4])[:, None],
        top_k=8,
        context_tokens=60.0,
        ranks=np.array([1, 2, 4, 16]),
    )
)
CAUSES = ("experts", "imbalance", "communication", "packing", "rest")


def seconds(**changes: float) -> EpSeconds:
    parts = {f.name: 1.0 for f in fields(EpSeconds)} | changes
    return EpSeconds(**{name: np.asarray(value) for name, value in parts.items()})


def test_parts_make_the_target_efficiency() -> None:
    parts = efficiency_parts(TIMES.decode, TIMES.verify)
    assert parts.target_efficiency == pytest.approx(TIMES.target_efficiency, rel=1e-12)
    growth = sum(getattr(parts, name) for name in CAUSES)
    assert 1.0 / TIMES.target_efficiency == pytest.approx(1.0 + growth, rel=1e-12)


@pytest.mark.parametrize("cause", CAUSES)
def test_a_cause_that_doubles_is_blamed_alone(cause: str) -> None:
    parts = efficiency_parts(seconds(), seconds(**{f"{cause}_s": 2.0}))
    assert {name: float(getattr(parts, name)) for name in CAUSES} == {
        name: 0.2 if name == cause else 0.0 for name in CAUSES
    }


def test_what_shrinks_counts_against_the_others() -> None:
    parts = efficiency_parts(seconds(), seconds(imbalance_s=0.5, experts_s=3.0))
    assert (float(parts.imbalance), float(parts.experts)) == (-0.1, 0.4)


def test_equal_forwards_lose_nothing() -> None:
    parts = efficiency_parts(TIMES.decode, TIMES.decode)
    assert np.all(parts.growth == 0.0)
    assert np.all(parts.target_efficiency == 1.0)


def test_parts_of_a_round_make_the_speedup() -> None:
    found = round_parts(TIMES).speedup(0.7, TIMES.gamma)
    assert found == pytest.approx(TIMES.speedup(0.7), rel=1e-12)


def test_without_sampling_both_decompositions_agree() -> None:
    bare = replace(TIMES, baseline_reject_s=np.zeros_like(TIMES.baseline_reject_s))
    parts = round_parts(bare)
    at = (2, 1, 3)
    times = RoundTimes(
        target_decode_s=float(bare.decode.total_s[at]),
        target_verify_s=float(bare.verify.total_s[at]),
        draft_step_s=float(bare.draft_step_s[at]),
        reject_s=float(bare.reject_s[at]),
    )
    factors = decompose(0.7, 4, times)
    assert float(parts.speedup(0.7, 4)[at]) == pytest.approx(factors.speedup)
    efficiency = float(parts.verification.target_efficiency[at])
    assert efficiency == pytest.approx(factors.target_efficiency)
    drafted = 1.0 / (1.0 / efficiency + float(parts.drafting[at]))
    assert drafted == pytest.approx(factors.target_efficiency * factors.drafting)


def test_a_forward_that_takes_no_time_has_no_parts() -> None:
    nothing = seconds(**{f.name: 0.0 for f in fields(EpSeconds)})
    with pytest.raises(ValueError, match="must take time, got 0"):
        efficiency_parts(nothing, seconds())
