"""What was measured: counts and seconds of every repeat. Ratios are derived here, on reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from moesd_dist.records.exchange import Exchange
from moesd_dist.records.point import SweepPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """One timed window in which the batch was always full, plus one end-to-end run if it was asked for.

    Seconds are wall-clock sums over the window's rounds; prefill lies outside them.
    `experts_seen` and `layer_forwards` let the means of activated experts be derived.
    """

    seconds: float
    rounds: int
    tokens: int  # emitted by all sequences, bonus tokens included
    drafted: int
    accepted: int
    accepted_per_position: tuple[
        int, ...
    ] = ()  # unconditional: rounds whose position i was accepted
    sequence_rounds: int  # rounds x sequences: what acceptance is counted over
    draft_s: float
    target_s: float  # target forwards: verification, or decoding at gamma = 0
    reject_s: float
    tokens_per_forward: int  # per sequence in one target forward: gamma + 1
    median_target_s: float
    median_draft_s: float
    experts_seen: tuple[int, ...] = ()  # [MoE layer] distinct experts, summed over forwards
    layer_forwards: int = 0  # MoE layers x target forwards
    expert_load: tuple[tuple[int, ...], ...] = ()  # [layer][expert] tokens in the window
    mean_context: float = 0.0  # tokens already in the KV cache, over rounds and sequences
    foreign_cpu: float = 0.0  # cores that others kept busy meanwhile
    prefill_s: float = 0.0
    prompts: int = 0  # prefilled for this repeat
    prompt_tokens: int = 0  # of all of them
    end_to_end_s: float = 0.0  # a batch from its first round to its last straggler; 0: not run
    end_to_end_tokens: int = 0
    overhead_s: float = 0.0  # of `seconds`: scheduling and bookkeeping around the three phases
    request_s: float = 0.0  # end to end, summed over requests: first output token to last
    request_tokens: int = 0  # those after the first, likewise
    scheduled_sequences: int = 0  # end to end, summed over decoding steps
    scheduled_steps: int = 0
    verified_tokens: int = (
        0  # that entered the target's forwards; 0: sequence_rounds x tokens_per_forward
    )
    engine_starts: int = 0  # engines that had to be started again for this repeat
    exchange: Exchange | None = None  # of its ranks, where an engine looks into them


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A finished point with the baseline it was interleaved with, repeat by repeat."""

    point: SweepPoint
    repeats: tuple[Repeat, ...]
    baseline: tuple[Repeat, ...]  # of a baseline point: its own repeats
    top_k: int = 0  # experts per token as the router really chose; 0 for a dense model
    num_experts: int = 0
    host: str = ""
    device_name: str = ""
    experts_path: str = ""  # packed or grouped_mm, as it really ran
    flags: tuple[str, ...] = ()  # what a reader must know, such as "foreign_load"
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)  # cores, clocks, node: as they were

    @property
    def timed(self) -> bool:
        """Whether its seconds mean anything; its counts do in any case."""
        return not self.point.untimed

    @property
    def ranks(self) -> int:
        """How many an engine looked into, or predicted; 0 where it did not, 1 where it is alone."""
        return max((r.exchange.size for r in self.repeats if r.exchange), default=0)

    def paired_speedups(self) -> list[float]:
        """Baseline seconds per token over ours, one a repeat."""
        pairs = zip(self.baseline, self.repeats, strict=True)
        return [(b.seconds / b.tokens) / (r.seconds / r.tokens) for b, r in pairs]

    def paired_target_efficiencies(self) -> list[float]:
        """T_T(B,1) / T_T(B,gamma+1) one a repeat, from medians over rounds."""
        pairs = zip(self.baseline, self.repeats, strict=True)
        return [b.median_target_s / r.median_target_s for b, r in pairs]

    @property
    def acceptance_length(self) -> float:
        """Tokens per sequence and round, the bonus token included: 1 + accepted / rounds."""
        return 1.0 + self._ratio(lambda r: r.accepted, lambda r: r.sequence_rounds)

    @property
    def sigma(self) -> float:
        return self.acceptance_length / (self.point.gamma + 1)

    @property
    def draft_acceptance_rate(self) -> float:
        """Accepted over drafted; 0 when nothing was drafted."""
        return self._ratio(lambda r: r.accepted, lambda r: r.drafted)

    @property
    def acceptance_per_position(self) -> tuple[float, ...]:
        """Unconditional acceptance of draft position 1..gamma; never increases with position."""
        rounds = sum(r.sequence_rounds for r in self.repeats)
        columns = zip(*(r.accepted_per_position for r in self.repeats), strict=True)
        return tuple(sum(column) / rounds for column in columns)

    @property
    def activated_experts(self) -> float:
        """Mean distinct experts hit in one layer by one target forward; 0 for a dense model."""
        return self._ratio(lambda r: sum(r.experts_seen), lambda r: r.layer_forwards)

    @property
    def activated_experts_per_layer(self) -> tuple[float, ...]:
        """The same for each MoE layer, in model order."""
        traced = [r for r in self.repeats if r.layer_forwards]  # some engines trace one repeat only
        forwards = sum(r.layer_forwards for r in traced)
        columns = list(zip(*(r.experts_seen for r in traced), strict=True))
        return tuple(sum(column) * len(columns) / forwards for column in columns)

    @property
    def baseline_activated_experts(self) -> float:
        return _ratio_of_totals(
            self.baseline, lambda r: sum(r.experts_seen), lambda r: r.layer_forwards
        )

    @property
    def end_to_end_speedup(self) -> float:
        """With the tail in which the batch runs empty, where both were run; else 0."""
        ours = self._ratio(lambda r: r.end_to_end_s, lambda r: r.end_to_end_tokens)
        base = _ratio_of_totals(
            self.baseline, lambda r: r.end_to_end_s, lambda r: r.end_to_end_tokens
        )
        return base / ours if ours else 0.0

    def _ratio(self, top: Callable[[Repeat], float], bottom: Callable[[Repeat], float]) -> float:
        return _ratio_of_totals(self.repeats, top, bottom)


def _ratio_of_totals(
    repeats: Sequence[Repeat], top: Callable[[Repeat], float], bottom: Callable[[Repeat], float]
) -> float:
    """A ratio of totals, never a mean of ratios; 0 when there is nothing below the line."""
    total = sum(bottom(r) for r in repeats)
    return sum(top(r) for r in repeats) / total if total else 0.0
