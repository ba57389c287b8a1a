"""Seconds of every part of a round at points that need not have been measured, and their speedup."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.counts import ModelCounts
from moesd_dist.theory.routing_law import RoutingLaw
from moesd_dist.theory.steps.law import Forwards, Rates, forward_seconds

_Floats = npt.NDArray[np.float64]

# Tokens of a sequence in a round's first draft forward, as engines run it: where every draft was
# accepted, the draft model has never read the last of them, and static shapes need the same of all.
FIRST_DRAFT_TOKENS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectLaw:
    """Seconds of sampling and of the acceptance rule: step_s + sequence_s B + token_s B (gamma + 1).

    A round of speculation pays round_s besides. Raises ValueError if a time is negative.
    """

    step_s: float
    sequence_s: float
    token_s: float
    round_s: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{field.name} must be 0 or more and finite, got {value}")

    def seconds(self, batch_size: npt.ArrayLike, gamma: npt.ArrayLike) -> _Floats:
        """In the shape that the two broadcast to; gamma 0 is a step of plain decoding."""
        batch, drafted = np.asarray(batch_size, np.float64), np.asarray(gamma, np.float64)
        per_sequence = self.sequence_s + (drafted + 1.0) * self.token_s
        return self.step_s + self.round_s * (drafted > 0.0) + batch * per_sequence


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """Points to predict; numbers and arrays that broadcast. gamma 0 is plain decoding."""

    batch_size: npt.ArrayLike
    gamma: npt.ArrayLike
    top_k: npt.ArrayLike
    context_tokens: npt.ArrayLike  # mean length of a sequence while it is decoded

    def arrays(self) -> tuple[_Floats, _Floats, _Floats, _Floats]:
        """batch_size, gamma, top_k and context_tokens in one shape."""
        points = (self.batch_size, self.gamma, self.top_k, self.context_tokens)
        values = (np.asarray(v, dtype=np.float64) for v in points)
        batch, gamma, top_k, context = np.broadcast_arrays(*values)
        return batch, gamma, top_k, context


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoundSeconds:
    """Arrays of one shape; engines verify gamma + 1 tokens a sequence, and so does this."""

    gamma: _Floats
    target_decode_s: _Floats
    target_verify_s: _Floats
    draft_step_s: _Floats  # a round's drafting over gamma
    reject_s: _Floats
    baseline_reject_s: _Floats  # sampling, of a step of plain decoding
    decode_experts: _Floats  # activated in a layer
    verify_experts: _Floats

    @property
    def step_s(self) -> _Floats:
        """One step of plain decoding, sampling included."""
        return self.target_decode_s + self.baseline_reject_s

    @property
    def round_s(self) -> _Floats:
        return self.target_verify_s + self.gamma * self.draft_step_s + self.reject_s

    @property
    def target_efficiency(self) -> _Floats:
        return self.target_decode_s / self.target_verify_s

    def speedup(self, sigma: npt.ArrayLike) -> _Floats:
        """MoESD's Eq. 4: sigma (gamma + 1) steps for the price of a round."""
        length = np.asarray(sigma, dtype=np.float64) * (self.gamma + 1.0)
        return length * self.step_s / self.round_s


@dataclass(frozen=True, slots=True, kw_only=True)
class StepModel:
    """A target and a draft on one kind of device: all that a prediction needs but acceptance."""

    target: ModelCounts
    draft: ModelCounts
    target_rates: Rates
    draft_rates: Rates
    reject: RejectLaw
    routing: RoutingLaw
    draft_round_s: float = 0.0  # of drafting, once a round

    def round_seconds(self, grid: Grid) -> RoundSeconds:
        """Every part of a round at every point; ValueError for a top_k outside 1..num_experts."""
        batch, gamma, top_k, context = grid.arrays()
        decode_s, decode_experts = self._target(batch, np.ones_like(gamma), top_k, context)
        verify_s, verify_experts = self._target(batch, gamma + 1.0, top_k, context)
        return RoundSeconds(
            gamma=gamma,
            target_decode_s=decode_s,
            target_verify_s=verify_s,
            draft_step_s=draft_step_seconds(
                self.draft, self.draft_rates, self.draft_round_s, grid=(batch, gamma, context)
            ),
            reject_s=self.reject.seconds(batch, gamma),
            baseline_reject_s=self.reject.seconds(batch, 0.0),
            decode_experts=decode_experts,
            verify_experts=verify_experts,
        )

    def _target(
        self, batch: _Floats, each: _Floats, top_k: _Floats, context: _Floats
    ) -> tuple[_Floats, _Floats]:
        """Seconds of a target forward and the experts that it activates in a layer."""
        activated = self.routing.activated_experts(self.target.num_experts, top_k, batch, each)
        forwards = Forwards(
            sequences=batch,
            tokens_each=each,
            context_tokens=context,
            activated_experts=activated,
            top_k=top_k,
        )
        return forward_seconds(self.target, self.target_rates, forwards), activated

    def moved(self, *, memory: float, compute: float) -> StepModel:
        """The same engine on a device with that many times the bytes/s and the FLOP/s.

        What waits for the host stays as long as it is.
        """
        return replace(
            self,
            target_rates=_moved(self.target_rates, memory, compute),
            draft_rates=_moved(self.draft_rates, memory, compute),
        )


def draft_step_seconds(
    model: ModelCounts, rates: Rates, round_s: float, *, grid: tuple[_Floats, _Floats, _Floats]
) -> _Floats:
    """A round's drafting over gamma, in the shape of `grid`: batch size, gamma and context.

    The first forward takes FIRST_DRAFT_TOKENS a sequence and the others one. At gamma 0 it is that
    of gamma 1, and nothing multiplies it.
    """
    batch, gamma, context = grid
    steps = np.maximum(gamma, 1.0)
    first, later = (
        forward_seconds(
            model, rates, Forwards(sequences=batch, tokens_each=each, context_tokens=context)
        )
        for each in (FIRST_DRAFT_TOKENS, 1.0)
    )
    return np.asarray((round_s + first + (steps - 1.0) * later) / steps)


def _moved(rates: Rates, memory: float, compute: float) -> Rates:
    return replace(
        rates,
        bytes_per_s=rates.bytes_per_s * memory,
        flops=rates.flops * compute,
        expert_flops=rates.expert_flops * compute,
    )
