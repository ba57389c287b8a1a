"""How many token-expert pairs the busiest of several ranks must work on."""

# Loads of ranks are independent counts (`load_law`) whose sum t K is known. That is exact for one
# expert per token, for one token, for one rank and for K = E, and elsewhere right in mean and
# variance: against simulation (`python -m benchmarks.ep_maximum`) within 1 % for uniform routing of
# 8 experts or more, 3 % for kappa = 13.4 with repeats; below kappa = 5 it overrates. t counts the
# tokens of all data-parallel ranks.

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.expert_parallel.activation import rank_sizes
from moesd_dist.theory.expert_parallel.largest import (
    Kind,
    expected_largest,
    expected_largest_free,
)
from moesd_dist.theory.expert_parallel.load_law import Choices, Throws, load_spread
from moesd_dist.theory.experts import activation_ratio

_Floats = npt.NDArray[np.float64]

_WHOLE = 12  # tokens 1, 2, ... are tabled one by one so far
_PER_OCTAVE = 3
_LAST = 2.0**20  # tokens; beyond, the scaled excess stays
_FREE_MEAN = 16.0  # pairs of a mean rank from which fixing their sum does not matter,
_STEADY = 100.0  # unless so few independent pairs make it that the free sum would vary a lot;
_SETTLED = (
    8.0  # then popularity rules, and the scaled excess stays, after so often kappa + 1 tokens
)


def expected_busiest_load(
    num_experts: int,
    top_k: int,
    ranks: int,
    gate_tokens: npt.ArrayLike,
    popularity: float = math.inf,
) -> _Floats:
    """Expected token-expert pairs of the rank that has most, in one layer; gate_tokens' shape.

    `gate_tokens` (t) is summed over data-parallel ranks. `popularity` is `RoutingLaw`'s; popular
    experts fall on ranks at random. Experts lie as evenly as they can.
    Raises ValueError if gate_tokens is negative, ranks < 1 or top_k lies outside 1..num_experts.
    """
    activation_ratio(num_experts, top_k)
    tokens = np.asarray(gate_tokens, dtype=np.float64)
    if not np.all(tokens >= 0.0):
        raise ValueError(f"gate_tokens must be >= 0, got {tokens.min()}; count tokens at the gate")
    mean = tokens * top_k * rank_sizes(num_experts, ranks)[0][1] / num_experts
    if top_k == num_experts or ranks == 1:
        return np.asarray(mean)
    grid, excess = _excess(num_experts, top_k, ranks, popularity)
    whole = np.maximum(tokens, 1.0)  # fewer than one token is one with that chance
    scaled = np.interp(np.log(whole), np.log(grid), excess)
    scale = np.sqrt(whole * load_spread(num_experts, top_k, whole, popularity))
    return np.asarray(mean + scaled * scale * np.minimum(tokens, 1.0))


@lru_cache(maxsize=4096)
def _excess(num_experts: int, top_k: int, ranks: int, popularity: float) -> tuple[_Floats, _Floats]:
    """Tokens, and what the busiest rank has above its mean over sqrt(tokens spread)."""
    rare = min(top_k, num_experts - top_k)  # of a token's choices, the chosen or the others
    grid, steady = _grid(), rare * (popularity + 1.0) >= _STEADY
    if not steady:
        grid = grid[grid <= max(_WHOLE, _SETTLED * (popularity + 1.0))]
    spreads = load_spread(num_experts, top_k, grid, popularity)
    kinds = [
        Kind(count=count, share=size / num_experts)
        for count, size in rank_sizes(num_experts, ranks)
        if size
    ]
    number = sum(kind.count for kind in kinds)
    found = np.empty_like(grid)
    for place, (tokens, spread) in enumerate(zip(grid, spreads, strict=True)):
        law = _law(num_experts, top_k, int(tokens), float(spread))
        fixed = not steady or tokens <= _WHOLE or law.total * min(spread, 1.0) < _FREE_MEAN * number
        most = (expected_largest if fixed else expected_largest_free)(law, kinds)
        found[place] = most - law.total * kinds[0].share
    return grid, found / np.sqrt(grid * spreads)


def _law(num_experts: int, top_k: int, tokens: int, spread: float) -> Throws | Choices:
    if top_k == 1:
        return Throws(total=tokens, spread=spread)
    return Choices(tokens=tokens, num_experts=num_experts, top_k=top_k, spread=spread)


@lru_cache(maxsize=1)
def _grid() -> _Floats:
    """Whole numbers of tokens, dense at first, then evenly spaced in their logarithm."""
    octaves = math.log2(_LAST / _WHOLE)
    coarse = _WHOLE * 2.0 ** np.linspace(0.0, octaves, math.ceil(octaves * _PER_OCTAVE) + 1)
    return np.unique(np.concatenate([np.arange(1.0, _WHOLE), np.round(coarse)]))
