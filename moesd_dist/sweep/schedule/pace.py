"""What the members of a group take, part by part, and what that makes of the group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from moesd_dist.records import DraftMethod, SweepPoint
from moesd_dist.sweep.grouping import Group
from moesd_dist.theory.acceptance import tokens_per_round, unconditional_from_conditional

ASSUMED_ALPHA = 0.7  # where nothing is said of acceptance: between a poor draft and a good one
TAIL = 1.3  # rounds until the last straggler is done over those of a mean sequence
SPARE = 1.25  # prompts prefilled over prompts needed, as the transformers engine does
SIMULATED_S = 1e-3  # of a simulated repeat: arithmetic


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Wall seconds of one point's parts."""

    window_s: float  # the timed rounds of one repeat
    round_s: float
    end_to_end_s: float  # a batch from its first round to its last straggler
    prefill_s: float  # the prompts of one repeat


class Estimate(Protocol):
    """One way to know what points take."""

    @property
    def source(self) -> str:
        """For a person; empty for a guess."""
        ...

    def pace(self, point: SweepPoint) -> Pace | None:
        """None where this way knows nothing of the point."""
        ...


def group_seconds(group: Group, paces: Sequence[Pace]) -> float:
    """The whole group's; `paces` are of its baseline and of its points, in that order.

    The transformers engine prefills once for all members, vLLM for each; and vLLM runs the first
    repeat of a model with experts once more, to watch its routers.
    """
    protocol, vllm = group.baseline.protocol, group.baseline.engine == "vllm"
    whole = min(protocol.repeats, protocol.end_to_end_repeats)
    windows = protocol.repeats + (1 if vllm else 0)
    own = sum(
        protocol.warmup_rounds * p.round_s + windows * p.window_s + whole * p.end_to_end_s
        for p in paces
    )
    each = [p.prefill_s for p in paces]
    return own + windows * (sum(each) if vllm else max(each))


def window_tokens(point: SweepPoint) -> int:
    """What all sequences write in one timed window, at least."""
    return max(point.batch_size * point.workload.output_tokens, point.protocol.window_tokens)


def window_rounds(point: SweepPoint) -> float:
    return max(1.0, window_tokens(point) / (point.batch_size * expected_length(point)))


def tail_rounds(point: SweepPoint) -> float:
    """Of one batch until its last sequence is done."""
    rounds = point.workload.output_tokens / expected_length(point)
    return rounds * TAIL if point.gamma else rounds


def prompts(point: SweepPoint) -> float:
    """Prefilled for one repeat, about."""
    needed = max(point.batch_size, window_tokens(point) / point.workload.output_tokens)
    return needed if point.engine == "vllm" else needed * SPARE + 1


def expected_length(point: SweepPoint) -> float:
    """Tokens of a sequence in a round: by the rates that were given, or at an assumed alpha."""
    sd, gamma = point.sd, point.gamma
    if not gamma or sd.method is DraftMethod.fixed:  # whose random tokens are not accepted
        return 1.0
    if rates := sd.synthetic_acceptance:
        known = (*rates, *rates[-1:] * gamma)[:gamma]
        return 1.0 + float(unconditional_from_conditional(known).sum())
    return tokens_per_round(ASSUMED_ALPHA if sd.alpha is None else sd.alpha, gamma)


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What a formula takes to be computed, whatever it predicts."""

    source: str = "simulated: formulas alone take time"

    def pace(self, point: SweepPoint) -> Pace | None:
        if not point.simulated:
            return None
        return Pace(window_s=SIMULATED_S, round_s=0.0, end_to_end_s=0.0, prefill_s=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """Every round alike: groups come in about the right order, in seconds of no meaning."""

    round_s: float = 0.05
    prefill_s: float = 0.02  # a prompt
    source: str = ""

    def pace(self, point: SweepPoint) -> Pace | None:
        return Pace(
            window_s=self.round_s * window_rounds(point),
            round_s=self.round_s,
            end_to_end_s=self.round_s * tail_rounds(point),
            prefill_s=self.prefill_s * prompts(point),
        )
