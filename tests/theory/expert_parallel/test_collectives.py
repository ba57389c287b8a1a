"""What links cost: limits, other ways to the same number, sampling, and a published library's times."""

from __future__ import annotations

from dataclasses import replace
from math import comb

import numpy as np
import numpy.typing as npt
import pytest

from moesd_dist.theory.expert_parallel.collectives import Link, Links
from moesd_dist.theory.expert_parallel.dispatch import (
    Dispatch,
    other_ranks_reached,
    rows_sent,
    traffic,
)
from moesd_dist.theory.expert_parallel.measured_links import Curve, Measured, fit_alpha_beta

NEAR = Link(latency_s=5e-6, bytes_per_s=4e11)
FAR = Link(latency_s=1e-5, bytes_per_s=5e10)
NODE = Links(intra=NEAR, ranks_per_node=8)
NODES = Links(intra=NEAR, inter=FAR, ranks_per_node=8)
COLLECTIVES = ("all_to_all_s", "all_gather_s", "reduce_scatter_s")


@pytest.mark.parametrize("name", COLLECTIVES)
def test_one_rank_has_nobody_to_talk_to(name: str) -> None:
    assert getattr(NODES, name)(1e9, 1) == 0.0
    assert NODES.counts_s(1) == 0.0


def test_inside_a_node_an_all_to_all_is_its_latency_and_its_bytes() -> None:
    assert NODE.all_to_all_s(4e8, 4) == pytest.approx(5e-6 + 1e-3)
    slow = replace(NODE, intra=replace(NEAR, peer_s=1e-6))
    assert slow.all_to_all_s(4e8, 4) == pytest.approx(5e-6 + 3e-6 + 1e-3)


def test_the_link_between_nodes_carries_what_goes_to_other_nodes() -> None:
    # Of 15 shares 7 stay in the node and 8 leave it; the outer link takes longer.
    assert NODES.all_to_all_s(15e6, 16) == pytest.approx(1e-5 + 8e6 / 5e10)
    # Both work at once: with a fast outer link the inner one is what takes long.
    quick = replace(NODES, inter=Link(latency_s=0.0, bytes_per_s=1e15))
    assert quick.all_to_all_s(15e6, 16) == pytest.approx(5e-6 + 7e6 / 4e11)


def test_the_emptiest_node_sends_most_to_others() -> None:
    # 9 ranks: the last is alone in its node and sends all of its bytes over the outer link.
    assert NODES.all_to_all_s(8e6, 9) == pytest.approx(1e-5 + 8e6 / 5e10)


def test_a_gathered_byte_enters_a_node_once() -> None:
    # 8 foreign ranks' contributions come in through 8 links, one each.
    assert NODES.all_gather_s(1e6, 16) == pytest.approx(5e-6 + 14e6 / 4e11)  # inside takes longer
    slow = replace(NODES, inter=replace(FAR, bytes_per_s=1e10))
    assert slow.all_gather_s(1e6, 16) == pytest.approx(1e-5 + 1e6 / 1e10)
    assert NODE.all_gather_s(1e6, 8) == pytest.approx(5e-6 + 7e6 / 4e11)
    assert NODES.reduce_scatter_s(16e6, 16) == pytest.approx(float(NODES.all_gather_s(1e6, 16)))


def test_one_rank_a_node_uses_the_outer_link_alone() -> None:
    lone = Links(intra=NEAR, inter=FAR, ranks_per_node=1)
    assert lone.all_to_all_s(3e6, 4) == pytest.approx(1e-5 + 3e6 / 5e10)
    assert lone.all_gather_s(1e6, 4) == pytest.approx(1e-5 + 3e6 / 5e10)


@pytest.mark.parametrize("name", COLLECTIVES)
def test_whole_arrays_are_their_elements_one_by_one(name: str) -> None:
    sizes, ranks = np.array([0.0, 1e3, 1e6, 1e9])[:, None], np.array([1, 2, 8, 9, 64, 512])
    together = getattr(NODES, name)(sizes, ranks)
    assert together.shape == (4, 6)
    single = [[float(getattr(NODES, name)(s, r)) for r in ranks] for s in sizes.ravel()]
    assert together == pytest.approx(np.array(single))
    assert np.all(np.diff(together, axis=0) >= 0.0)  # more bytes never take less time


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda: NODE.all_to_all_s(1.0, 16), "16 ranks span nodes of 8", id="nodes"),
        pytest.param(lambda: NODE.counts_s(0), "ranks must be at least 1, got 0", id="no ranks"),
        pytest.param(lambda: replace(FAR, latency_s=-1.0), "latency_s must be 0 or", id="latency"),
        pytest.param(lambda: replace(FAR, bytes_per_s=0.0), "must be positive, got 0", id="rate"),
        pytest.param(lambda: replace(NODE, ranks_per_node=0), "at least 1, got 0", id="node"),
        pytest.param(lambda: Curve(bytes_out=[1.0], seconds=[1.0]), "2 or more sizes", id="curve"),
        pytest.param(
            lambda: Curve(bytes_out=[1.0, 2.0], seconds=[1.0, 0.0]), "positive, got 0", id="timed"
        ),
        pytest.param(lambda: fit_alpha_beta([1, 1], [1, 1]), "2 different sizes", id="one size"),
    ],
)
def test_what_makes_no_sense_is_refused(make: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("num_experts", "top_k", "ranks"),
    [(64, 8, 1), (64, 8, 4), (8, 2, 8), (256, 8, 64), (384, 8, 512), (10, 3, 4), (60, 4, 7)],
)
def test_ranks_reached_by_counting_choices(num_experts: int, top_k: int, ranks: int) -> None:
    held = [num_experts // ranks + (r < num_experts % ranks) for r in range(ranks)]
    hit = [1.0 - comb(num_experts - h, top_k) / comb(num_experts, top_k) for h in held]
    expected = sum(hit) * (ranks - 1) / ranks  # the own rank is as likely hit as any
    found = float(other_ranks_reached(num_experts, top_k, ranks))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found <= min(top_k, ranks - 1) + 1e-9


def test_ranks_reached_by_drawing_experts() -> None:
    rng = np.random.default_rng(0)
    drawn = np.argsort(rng.random((20_000, 64)), axis=1)[:, :8] // 8  # ranks of 8 experts each
    others = [len(set(row) - {0}) for row in drawn]
    assert np.mean(others) == pytest.approx(float(other_ranks_reached(64, 8, 8)), rel=0.01)


def test_every_way_of_dispatching_sends_its_rows() -> None:
    assert rows_sent(Dispatch.ONCE_AN_EXPERT, 64, 8, 8) == pytest.approx(7.0)
    assert rows_sent(Dispatch.TO_ALL, 64, 8, 8) == 7.0
    once = rows_sent(Dispatch.ONCE_A_RANK, 64, 8, 8)
    assert 4.0 < once < 5.0
    # With one expert a rank nothing is sent twice, so deduplicating saves nothing.
    both = [rows_sent(d, 64, 8, 64) for d in (Dispatch.ONCE_A_RANK, Dispatch.ONCE_AN_EXPERT)]
    assert both[0] == pytest.approx(float(both[1]))


def test_traffic_counts_rows_bytes_and_three_collectives() -> None:
    own = {
        "tokens": 16.0,
        "num_experts": 64,
        "top_k": 8,
        "ranks": 8,
        "hidden_size": 2048,
        "bytes_per_value": 2.0,
    }
    found = traffic(NODES, Dispatch.ONCE_AN_EXPERT, **own)  # type: ignore[arg-type]
    assert (float(found.rows), float(found.dispatch_bytes)) == (112.0, 112 * (4096 + 64))
    assert found.combine_bytes == 112 * 4096
    assert found.dispatch_s == NODES.all_to_all_s(112 * 4160, 8)
    assert found.seconds == found.counts_s + found.dispatch_s + found.combine_s
    in_8_bits = traffic(NODES, Dispatch.ONCE_AN_EXPERT, **own | {"bytes_per_value": 1.0})  # type: ignore[arg-type]
    assert (in_8_bits.dispatch_bytes, in_8_bits.combine_bytes) == (112 * 2112, 112 * 4096)
    gathered = traffic(NODES, Dispatch.TO_ALL, **own)  # type: ignore[arg-type]
    assert gathered.dispatch_s == NODES.all_gather_s(16 * 4160, 8)
    assert gathered.combine_s == NODES.reduce_scatter_s(8 * 16 * 4096, 8)


CURVE = Curve(bytes_out=[1e3, 1e4, 1e6], seconds=[1e-4, 2e-4, 1e-3])


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        pytest.param(0.0, 1e-4, id="below: flat"),
        pytest.param(5.5e3, 1.5e-4, id="in between: linear"),
        pytest.param(1.99e6, 1.8e-3, id="above: the last slope"),
    ],
)
def test_a_measured_curve_is_read_between_its_sizes(asked: float, seconds: float) -> None:
    cost = Measured(curves={("all_to_all", 4): CURVE})
    assert cost.all_to_all_s(asked, 4) == pytest.approx(seconds)
    both = cost.all_to_all_s(np.array([asked, asked]), np.array([1, 4]))
    assert both == pytest.approx(np.array([0.0, seconds]))


def test_what_nobody_timed_is_refused_with_what_was() -> None:
    cost = Measured(curves={("all_to_all", 4): CURVE})
    assert cost.counts_s(4) == pytest.approx(1e-4)
    for asked in (lambda: cost.all_to_all_s(1.0, 8), lambda: cost.all_gather_s(1.0, 4)):
        with pytest.raises(ValueError, match="was not timed, only all_to_all of 4"):
            asked()


def test_latency_and_rate_are_found_again_under_noise() -> None:
    sizes = np.geomspace(1e3, 1e8, 30)
    noise = np.exp(0.05 * np.random.default_rng(1).standard_normal(30))
    found = fit_alpha_beta(sizes, (2e-4 + sizes / 3e9) * noise)
    assert found.latency_s == pytest.approx(2e-4, rel=0.05)
    assert found.bytes_per_s == pytest.approx(3e9, rel=0.05)
    assert fit_alpha_beta([1.0, 2.0], [1e-3, 1e-3]).bytes_per_s > 1e15  # all latency


# DeepEP 1, low-latency kernels on H800 with ~160 GB/s of NVLink and ~50 GB/s of InfiniBand a GPU: 128
# tokens of 7168 values, top 8, dispatched in 8 bits (a scale for 128 values), combined in 16.
# https://github.com/deepseek-ai/DeepEP/blob/0297fc8/docs/legacy.md
RANKS: npt.NDArray[np.int64] = np.array([16, 32, 64, 128, 256])
DISPATCH_S = np.array([118, 155, 173, 192, 194]) * 1e-6
COMBINE_S = np.array([195, 273, 314, 369, 360]) * 1e-6


@pytest.mark.parametrize(
    ("row_bytes", "published"),
    [pytest.param(7168 * 33 / 32, DISPATCH_S, id="dispatch"), pytest.param(14336, COMBINE_S, id="combine")],
)  # fmt: skip
def test_published_times_are_bounded_by_peak_figures_and_grow_alike(
    row_bytes: float, published: npt.NDArray[np.float64]
) -> None:
    peak = Links(
        intra=Link(latency_s=5e-6, bytes_per_s=160e9),
        inter=Link(latency_s=1e-5, bytes_per_s=50e9),
        ranks_per_node=8,
    )
    sent = 128 * rows_sent(Dispatch.ONCE_AN_EXPERT, 256, 8, RANKS) * row_bytes
    shares = peak.all_to_all_s(sent, RANKS) / published
    assert np.all((shares > 0.7) & (shares < 1.0))  # a peak is not exceeded, nor far from reached
