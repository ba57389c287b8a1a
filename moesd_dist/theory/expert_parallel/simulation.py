"""What simulated routing asks of the ranks of any placement, with standard errors."""

# The reference for the closed forms of `activation` and `load`, and the only answer where there is
# none: popular experts at known places, replicas, correlated tokens.

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binom  # type: ignore[import-untyped, unused-ignore]

from moesd_dist.theory.expert_parallel.placement import EMPTY, Placement
from moesd_dist.theory.expert_parallel.sampling import expert_loads

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over simulated forwards and its standard error."""

    mean: float
    error: float

    def over(self, scale: float) -> Estimate:
        """Both divided by a known number."""
        return Estimate(mean=self.mean / scale, error=self.error / scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSample:
    """One layer's simulated forwards: physical experts hit on a rank, token-expert pairs of a rank."""

    activated_mean: Estimate  # of the mean rank
    activated_max: Estimate  # of the busiest
    load_mean: float
    load_max: Estimate

    @property
    def load_imbalance(self) -> Estimate:
        """Expected load of the busiest rank over the mean rank's."""
        return self.load_max.over(self.load_mean)


def simulate_ranks(
    rng: np.random.Generator,
    placement: Placement,
    weights: npt.ArrayLike,
    *,
    top_k: int,
    sequences: int,
    draws: int,
    tokens_each: int = 1,
    fresh_share: float = 1.0,
    layer: int = 0,
) -> RankSample:
    """`sequences` is the batch of all ranks; other arguments as in `sampling.expert_loads`.

    Replicas of an expert take its tokens in turn, from a random one on.
    Raises ValueError unless sequences, tokens_each and draws are positive (two draws at least).
    """
    if sequences < 1 or tokens_each < 1 or draws < 2:
        raise ValueError(
            "sequences and tokens_each must be at least 1, draws at least 2, "
            f"got {sequences}, {tokens_each}, {draws}"
        )
    loads = expert_loads(
        rng,
        weights,
        top_k=top_k,
        sequences=sequences,
        draws=draws,
        tokens_each=tokens_each,
        fresh_share=fresh_share,
    )
    slots = _slot_loads(rng, loads, placement.physical_to_logical[layer])
    by_rank = slots.reshape(draws, placement.ranks, placement.slots_per_rank)
    activated, load = (by_rank > 0).sum(axis=2), by_rank.sum(axis=2)
    return RankSample(
        activated_mean=_estimate(activated.mean(axis=1)),
        activated_max=_estimate(activated.max(axis=1)),
        load_mean=sequences * tokens_each * top_k / placement.ranks,
        load_max=_estimate(load.max(axis=1)),
    )


def expected_activated_by_rank(
    chances: npt.ArrayLike, placement: Placement, gate_tokens: int, *, layer: int = 0
) -> _Floats:
    """Expected physical experts hit on each rank, [rank], when tokens choose independently.

    `chances` [expert] is how likely a token takes each expert (`popularity.chosen_chances`; they
    sum to top_k). One of c replicas is hit by (1/c) sum_{j <= c} P(at least j tokens), else by
    1 - (1 - p)^t; `gate_tokens` (t) is summed over data-parallel ranks.
    """
    taken = np.asarray(chances, dtype=np.float64)
    row = placement.physical_to_logical[layer]
    replicas = np.bincount(row[row != EMPTY], minlength=placement.num_experts)
    at_least = np.arange(1, replicas.max() + 1)[:, None]
    tails = np.where(at_least <= replicas, binom.sf(at_least - 1, gate_tokens, taken), 0.0)
    hit = tails.sum(axis=0) / replicas
    slots = np.where(row == EMPTY, 0.0, hit[row])
    return np.asarray(slots.reshape(placement.ranks, -1).sum(axis=1))


def _slot_loads(rng: np.random.Generator, loads: _Ints, row: _Ints) -> _Ints:
    """Tokens of each physical expert, [draw, slot]: dealt to replicas in turn."""
    experts = loads.shape[1]
    replicas = np.bincount(row[row != EMPTY], minlength=experts)
    first = rng.integers(0, replicas, size=loads.shape)
    found = np.zeros((len(loads), len(row)), dtype=np.int64)
    seen = np.zeros(experts, dtype=np.int64)
    for slot, expert in enumerate(row):
        if expert != EMPTY:
            whole, rest = np.divmod(loads[:, expert], replicas[expert])
            turn = (seen[expert] - first[:, expert]) % replicas[expert]
            found[:, slot] = whole + (turn < rest)
            seen[expert] += 1
    return found


def _estimate(values: npt.NDArray[np.number]) -> Estimate:
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Estimate(mean=float(np.mean(values)), error=error)
