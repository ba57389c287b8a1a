"""What simulated routing asks of the ranks of any placement, with standard errors."""

# The reference for the closed forms of `activation` and `load`, and the only answer where there is
# none: popular experts at known places, replicas, correlated tokens. Replicas are chosen as the
# transformers engine does: by a token's place among its rank's tokens, not by who came before, so
# that two tokens of an expert may meet on one replica while another has none.

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.expert_parallel.placement import EMPTY, Placement
from moesd_dist.theory.expert_parallel.sampling import counted, forwards

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

    logical: Estimate  # distinct experts of all ranks, replicas of one counted once
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

    The first ranks have the odd sequences; a rank takes replicas in turn by token (`turns`).
    Raises ValueError unless sequences, tokens_each and draws are positive (two draws at least).
    """
    if sequences < 1 or tokens_each < 1 or draws < 2:
        raise ValueError(
            "sequences and tokens_each must be at least 1, draws at least 2, "
            f"got {sequences}, {tokens_each}, {draws}"
        )
    chosen = forwards(
        rng,
        weights,
        top_k=top_k,
        sequences=sequences,
        draws=draws,
        tokens_each=tokens_each,
        fresh_share=fresh_share,
    )
    slots, experts = Slots(placement, layer), placement.num_experts
    turn = turns(sequences, tokens_each, placement.ranks)
    both = [(counted(block, experts), slots.loads(block, turn)) for block in chosen]
    logical, physical = (np.concatenate(loads) for loads in zip(*both, strict=True))
    by_rank = physical.reshape(draws, placement.ranks, placement.slots_per_rank)
    activated, load = (by_rank > 0).sum(axis=2), by_rank.sum(axis=2)
    return RankSample(
        logical=_estimate((logical > 0).sum(axis=1)),
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
    sum to top_k). A physical expert is hit by 1 - (1 - p)^n, n being the tokens whose turn it is:
    all `gate_tokens`, summed over data-parallel ranks, unless it has replicas.
    """
    taken = np.append(np.asarray(chances, dtype=np.float64), 0.0)  # EMPTY is never taken
    slots, turn = Slots(placement, layer), turns(gate_tokens, 1, placement.ranks)
    tokens = (turn[:, None] % slots.sharing == slots.place).sum(axis=0)
    hit = 1.0 - (1.0 - taken[slots.row]) ** tokens
    return np.asarray(hit.reshape(placement.ranks, -1).sum(axis=1))


def turns(sequences: int, tokens_each: int, ranks: int) -> _Ints:
    """Which replica a token takes, before the remainder by their number: its place on its rank.

    Of all tokens, [sequences x tokens_each], rank by rank; each rank begins with another replica.
    """
    sizes = [sequences // ranks + (rank < sequences % ranks) for rank in range(ranks)]
    return np.concatenate([np.arange(size * tokens_each) + r for r, size in enumerate(sizes)])


class Slots:
    """One layer's physical experts: which logical one is in each, and which of its replicas."""

    def __init__(self, placement: Placement, layer: int) -> None:
        self.row = placement.physical_to_logical[layer]
        filled = np.flatnonzero(self.row != EMPTY)
        experts = self.row[filled]
        self._replicas = np.bincount(experts, minlength=placement.num_experts)
        self.place = np.zeros(len(self.row), dtype=np.int64)  # among the replicas, [slot]
        self.sharing = np.ones(len(self.row), dtype=np.int64)  # how many they are, [slot]
        self._slots = np.zeros((placement.num_experts, self._replicas.max()), dtype=np.int64)
        order = np.argsort(experts, kind="stable")
        first = np.repeat(np.cumsum(self._replicas) - self._replicas, self._replicas)
        self.place[filled[order]] = np.arange(len(order)) - first
        self.sharing[filled] = self._replicas[experts]
        self._slots[experts, self.place[filled]] = filled

    def loads(self, chosen: _Ints, turn: _Ints) -> _Ints:
        """Tokens of each slot, [draw, slot], from logical choices [draw, token, top_k]."""
        replica = turn[:, None] % self._replicas[chosen]
        return counted(self._slots[chosen, replica], len(self.row))


def _estimate(values: npt.NDArray[np.number]) -> Estimate:
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Estimate(mean=float(np.mean(values)), error=error)
