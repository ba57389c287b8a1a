"""Every possible routing of tiny cases, and simulated loads of ranks: what the laws are checked by."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product

import numpy as np

from moesd_dist.theory.expert_parallel import placement
from moesd_dist.theory.expert_parallel.activation import rank_sizes
from moesd_dist.theory.expert_parallel.simulation import RankSample, simulate_ranks

# Small enough to write down every choice of every token: (experts, top_k, ranks, tokens).
TINY = [(4, 1, 2, 4), (4, 2, 2, 3), (4, 2, 4, 3), (5, 2, 2, 3), (5, 3, 3, 2), (3, 1, 5, 4), (6, 2, 3, 2)]  # fmt: skip


def every_load(num_experts: int, top_k: int, tokens: int) -> Iterator[np.ndarray]:
    """Tokens of each expert, for all equally likely choices."""
    choices = list(combinations(range(num_experts), top_k))
    for chosen in product(choices, repeat=tokens):
        yield np.bincount(np.concatenate(chosen), minlength=num_experts)


def by_rank(per_expert: np.ndarray, ranks: int) -> np.ndarray:
    """Sums over the experts of each rank, the last axis; ranks without experts are left out."""
    sizes = rank_sizes(per_expert.shape[-1], ranks)
    starts = np.cumsum([0, *(size for count, size in sizes for _ in range(count) if size)])
    return np.add.reduceat(per_expert, starts[:-1], axis=-1)


def simulated(
    num_experts: int, top_k: int, ranks: int, tokens: int, *, draws: int, seed: int = 0
) -> RankSample:
    """Uniform routing of experts that lie side by side."""
    return simulate_ranks(
        np.random.default_rng([seed, num_experts, ranks, tokens]),
        placement.linear(num_experts, ranks=ranks),
        np.ones(num_experts),
        top_k=top_k,
        sequences=tokens,
        draws=draws,
    )
