"""Seconds of a round on ranks that share the experts: attention each for itself, experts together."""

# A rank holds its sequences, its own copy of all that is no expert, and E/R experts. A forward waits
# in every MoE layer for the busiest rank, and before and after it for the links. Measured as in
# `records.exchange`: after the counts all ranks start together, so imbalance is waited out in combine.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.expert_parallel.collectives import ExchangeCost
from moesd_dist.theory.expert_parallel.dispatch import Dispatch, traffic
from moesd_dist.theory.expert_parallel.rank_law import rank_expectation
from moesd_dist.theory.expert_parallel.round_parts import (
    FREE,
    EpGrid,
    EpRoundSeconds,
    EpSeconds,
    Packing,
    RankWork,
)
from moesd_dist.theory.steps.law import Forwards, expert_seconds, forward_seconds
from moesd_dist.theory.steps.model import StepModel, draft_step_seconds

__all__ = ["EpGrid", "EpModel", "EpRoundSeconds", "EpSeconds", "Packing", "RankWork", "alone"]

_Floats = npt.NDArray[np.float64]

Slowdown = Callable[[_Floats], _Floats]


def alone(ranks: _Floats) -> _Floats:
    """Every rank has cores and memory of its own: as many seconds as one rank needs, times 1."""
    return np.ones_like(ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpModel:
    """`step` is of one rank that holds everything; its routing law is that of all ranks' tokens.

    `hidden_share` of communication passes behind computation: an assumption, not a law; engines
    with two micro-batches in turn come near 1, those with one have 0. `slowdown` is how many times
    longer a rank computes while all others do: 1 with a device each, up to ranks over cores where
    they share a host. Ranks that share leave cores to the busiest, so its experts take the longer
    of its own seconds alone and the mean rank's seconds slowed down.

    Raises ValueError if hidden_share lies outside [0, 1] or the target has no experts.
    """

    step: StepModel
    cost: ExchangeCost
    dispatch: Dispatch = Dispatch.ONCE_A_RANK
    packing: Packing = FREE
    hidden_share: float = 0.0
    slowdown: Slowdown = alone

    def __post_init__(self) -> None:
        if not 0.0 <= self.hidden_share <= 1.0:
            raise ValueError(
                f"hidden_share must lie in [0, 1], got {self.hidden_share}; 0 hides nothing"
            )
        if not self.step.target.num_experts:
            raise ValueError("ranks can only share the experts of a MoE model, this one is dense")

    def target_seconds(self, grid: EpGrid, tokens_each: npt.ArrayLike) -> EpSeconds:
        """A forward of so many tokens a sequence at every point; gamma has no part in it."""
        return self.target(grid, tokens_each)[0]

    def target(self, grid: EpGrid, tokens_each: npt.ArrayLike) -> tuple[EpSeconds, RankWork]:
        """The forward's seconds, and the work behind them."""
        batch, _, top_k, _, ranks = grid.arrays()
        each = np.broadcast_to(np.asarray(tokens_each, np.float64), batch.shape)
        work = self._work(batch, each, top_k, ranks)
        return self.seconds(grid, each, work), work

    def seconds(self, grid: EpGrid, tokens_each: npt.ArrayLike, work: RankWork) -> EpSeconds:
        """A forward whose work is known, however it was found."""
        batch, _, _, context, ranks = grid.arrays()
        slowed, found, sent = self.slowdown(ranks), work.experts, work.traffic
        model, rates = self.step.target, self.step.target_rates
        own = Forwards(
            sequences=_share(batch, ranks), tokens_each=tokens_each, context_tokens=context
        )
        mean_s = slowed * expert_seconds(model, rates, found.activated_mean, found.load_mean)
        busiest_s = expert_seconds(model, rates, found.activated_max, found.load_max)
        return EpSeconds(
            rest_s=slowed * forward_seconds(model, rates, own),
            experts_s=mean_s,
            imbalance_s=np.maximum(busiest_s - mean_s, 0.0),
            communication_s=model.num_moe_layers * sent.seconds * (1.0 - self.hidden_share),
            packing_s=model.num_moe_layers * slowed * self.packing.seconds(sent.rows, ranks),
        )

    def round_seconds(self, grid: EpGrid) -> EpRoundSeconds:
        """Every part of a round at every point; ValueError for a top_k outside 1..num_experts."""
        gamma = grid.arrays()[1]
        decode, decode_work = self.target(grid, 1.0)
        verify, verify_work = self.target(grid, gamma + 1.0)
        return EpRoundSeconds(
            gamma=gamma,
            decode=decode,
            verify=verify,
            decode_work=decode_work,
            verify_work=verify_work,
            draft_step_s=self.draft_step_s(grid),
            reject_s=self.reject_s(grid, gamma),
            baseline_reject_s=self.reject_s(grid, 0.0),
        )

    def draft_step_s(self, grid: EpGrid) -> _Floats:
        """A round's drafting over gamma: each rank drafts for its own sequences."""
        batch, gamma, _, context, ranks = grid.arrays()
        places, step = (_share(batch, ranks), gamma, context), self.step
        alone_s = draft_step_seconds(step.draft, step.draft_rates, step.draft_round_s, grid=places)
        return self.slowdown(ranks) * alone_s

    def reject_s(self, grid: EpGrid, gamma: npt.ArrayLike) -> _Floats:
        """Sampling and the acceptance rule, for a rank's own sequences; gamma 0 is plain decoding."""
        batch, _, _, _, ranks = grid.arrays()
        return self.slowdown(ranks) * self.step.reject.seconds(_share(batch, ranks), gamma)

    def _work(self, batch: _Floats, each: _Floats, top_k: _Floats, ranks: _Floats) -> RankWork:
        model, routing = self.step.target, self.step.routing
        most = _share(batch, ranks) * each
        return RankWork(
            tokens=batch * each / ranks,
            most_tokens=most,
            activated_experts=routing.activated_experts(model.num_experts, top_k, batch, each),
            experts=rank_expectation(
                num_experts=model.num_experts,
                top_k=top_k,
                ranks=ranks,
                sequences=batch,
                tokens_each=each,
                routing=routing,
            ),
            traffic=traffic(
                self.cost,
                self.dispatch,
                tokens=most,
                num_experts=model.num_experts,
                top_k=top_k,
                ranks=ranks,
                hidden_size=model.hidden_size,
                bytes_per_value=model.bytes_per_value,
            ),
        )


def _share(batch: _Floats, ranks: _Floats) -> _Floats:
    """Sequences of the rank that has most."""
    return np.ceil(batch / ranks)
