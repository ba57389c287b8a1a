"""What a forward asks of the mean rank and of the busiest one, for whole grids of points at once."""

# Everything is looked up in two tables, by effective tokens of the whole batch.
#
# Activated experts: popular experts, and neighbours that share them, change how many distinct
# experts n there are, not that any set of n is as likely as another when popularity falls on ranks
# at random. So the busiest rank's are those of uniform routing with as many distinct experts. How
# many of a batch's further tokens are fresh is binomial; two values with its first three moments
# stand for it.
#
# Load: a token repeats its predecessor's whole choice with chance q = 1 - fresh_share. The pairs of
# tokens of one sequence that share a choice add D = 2 B sum_d (s - d) q^d to the tokens' t; the
# variance is exactly that of t / w tokens of weight w = 1 + D / t each, and so we take the largest.

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.expert_parallel.activation import busiest_of_distinct
from moesd_dist.theory.expert_parallel.load import expected_busiest_load
from moesd_dist.theory.routing_law import UNIFORM, RoutingLaw

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankExpectation:
    """Per MoE layer and forward; all four have one shape. `max` is of the busiest rank.

    Experts are counted, and token-expert pairs (`load`); shared experts are not among them.
    """

    activated_mean: _Floats
    activated_max: _Floats
    load_mean: _Floats
    load_max: _Floats

    @property
    def load_imbalance(self) -> _Floats:
        """Busiest over mean rank, at least 1; 1 where there is no load."""
        return _ratio(self.load_max, self.load_mean)

    @property
    def activation_imbalance(self) -> _Floats:
        """Busiest over mean rank, at least 1; 1 where nothing is activated."""
        return _ratio(self.activated_max, self.activated_mean)


def rank_expectation(
    *,
    num_experts: int,
    top_k: npt.ArrayLike,
    ranks: npt.ArrayLike,
    sequences: npt.ArrayLike,
    tokens_each: npt.ArrayLike,
    routing: RoutingLaw = UNIFORM,
) -> RankExpectation:
    """Mean and busiest rank of one layer and one forward; the four arrays broadcast.

    `sequences` is the batch of all ranks together, `tokens_each` 1 or gamma + 1. Experts lie evenly
    on ranks, without replicas, popular ones anywhere. A dense model (0 experts) gives zeros.
    Raises ValueError if sequences or tokens_each is negative, ranks < 1 or top_k lies outside
    1..num_experts.
    """
    chosen, parts, batch, each = np.broadcast_arrays(top_k, ranks, sequences, tokens_each)
    batch, each = batch.astype(np.float64), each.astype(np.float64)
    _check(parts, batch, each)
    distinct = routing.activated_experts(num_experts, chosen, batch, each)
    over_mean, load_max = np.ones(batch.shape), np.zeros(batch.shape)
    if num_experts:
        tokens, weight = batch * each, _weight(each, 1.0 - routing.fresh_share)
        woken = [
            (share, _independent(routing, num_experts, chosen, fresh))
            for share, fresh in _fresh_tokens(batch, each, routing.fresh_share)
        ]
        for k, r, at in _groups(chosen, parts):
            over_mean[at] = _over_mean(num_experts, k, r, [(s[at], n[at]) for s, n in woken])
            load_max[at] = weight[at] * expected_busiest_load(
                num_experts, k, r, tokens[at] / weight[at], routing.popularity
            )
    held = np.ceil(num_experts / parts)  # at most, on a rank
    return RankExpectation(
        activated_mean=distinct / parts,
        activated_max=np.minimum(distinct / parts * over_mean, held),
        load_mean=batch * each * chosen / parts if num_experts else np.zeros(batch.shape),
        load_max=np.minimum(load_max, batch * each * np.minimum(chosen, held)),
    )


def _check(ranks: npt.NDArray[np.integer], sequences: _Floats, tokens_each: _Floats) -> None:
    if not np.all(ranks >= 1):
        raise ValueError(f"ranks must be at least 1, got {ranks.min()}; one rank holds all experts")
    for name, values in (("sequences", sequences), ("tokens_each", tokens_each)):
        if not np.all(values >= 0.0):
            raise ValueError(f"{name} must be >= 0, got {values.min()}; count those of all ranks")


def _fresh_tokens(
    sequences: _Floats, tokens_each: _Floats, fresh_share: float
) -> list[tuple[_Floats, _Floats]]:
    """(probability, fresh tokens of the batch) twice: the binomial's mean, variance and skewness.

    Once where all are fresh for sure.
    """
    further = sequences * np.maximum(tokens_each - 1.0, 0.0)
    if fresh_share == 1.0:
        return [(np.ones_like(further), np.minimum(tokens_each, 1.0) * sequences + further)]
    deviation = np.sqrt(further * fresh_share * (1.0 - fresh_share))
    skewness = np.divide(1.0 - 2.0 * fresh_share, deviation, out=np.zeros_like(further), where=deviation > 0.0)  # fmt: skip
    half = skewness / 2.0
    root = np.sqrt(1.0 + half**2)
    middle = np.minimum(tokens_each, 1.0) * sequences + further * fresh_share
    return [
        ((root - half) / (2.0 * root), middle + deviation * (half + root)),
        ((root + half) / (2.0 * root), middle + deviation * (half - root)),
    ]


def _independent(routing: RoutingLaw, num_experts: int, top_k: _Ints, tokens: _Floats) -> _Floats:
    """Distinct experts of so many tokens of different sequences."""
    return routing.activated_experts(num_experts, top_k, np.maximum(tokens, 0.0), 1.0)


def _over_mean(
    num_experts: int, top_k: int, ranks: int, woken: list[tuple[_Floats, _Floats]]
) -> _Floats:
    """Activated experts of the busiest rank over the mean's, from (probability, distinct experts)."""
    mean, most = np.zeros(()), np.zeros(())
    for share, distinct in woken:
        mean = mean + share * distinct
        most = most + share * busiest_of_distinct(num_experts, top_k, ranks, distinct)
    return np.maximum(_ratio(ranks * most, mean), 1.0)


def _weight(tokens_each: _Floats, repeats: float) -> _Floats:
    """1 + 2 sum_{d < s} (1 - d/s) q^d: tokens of a sequence that share a token's choice, itself too."""
    each = np.maximum(tokens_each, 1.0)
    if repeats == 1.0:
        return each
    fresh = 1.0 - repeats
    return np.asarray(1.0 + 2.0 * repeats * (1.0 - (1.0 - repeats**each) / (each * fresh)) / fresh)


def _groups(top_k: _Ints, ranks: _Ints) -> Iterator[tuple[int, int, npt.NDArray[np.bool_]]]:
    """Points that share their tables: (top_k, ranks, where)."""
    for k, r in sorted(set(zip(top_k.ravel().tolist(), ranks.ravel().tolist(), strict=True))):
        yield int(k), int(r), (top_k == k) & (ranks == r)


def _ratio(most: _Floats, mean: _Floats) -> _Floats:
    return np.divide(most, mean, out=np.ones_like(mean), where=mean > 0.0)
