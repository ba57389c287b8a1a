"""From a probe's steps to a Repeat: which steps count, and what they add up to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from moesd_dist.records import Repeat


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One scheduler step; per-row tuples are in the order of `rows`.

    period_s: from the begin of this step's target forward to that of the next; None for the last.
    """

    decoding: bool  # no prompt was in it
    tokens: int  # that entered the target's forward
    context: float  # mean tokens already in the KV cache
    rows: tuple[str, ...]
    emitted: tuple[int, ...]
    drafted: tuple[int, ...]  # verified in this step
    target_s: float
    sample_s: float
    draft_s: float
    step_s: float
    period_s: float | None

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Step:
        lists = {key: tuple(plain[key]) for key in ("rows", "emitted", "drafted")}
        return cls(**{**plain, **lists})

    @property
    def accepted(self) -> tuple[int, ...]:
        """Drafts accepted by row; the last emitted token is the target's own."""
        return tuple(count - 1 for count in self.emitted)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndToEnd:
    """A batch from its prompts to its last straggler, as a user waits for it."""

    steps: tuple[Step, ...]
    prefill_s: float
    prompts: int
    prompt_tokens: int
    output_tokens: int
    request_s: float  # first output token to last, summed over requests
    request_tokens: int


def full(steps: Sequence[Step], batch_size: int) -> list[Step]:
    """Decoding steps with the whole batch in them; the last of a run has no period."""
    return [s for s in steps if s.decoding and len(s.rows) == batch_size and s.period_s is not None]


def accepted_per_position(steps: Sequence[Step], gamma: int) -> tuple[int, ...]:
    """How many rows accepted draft position 1..gamma."""
    accepted = [count for step in steps for count in step.accepted]
    return tuple(sum(count > place for count in accepted) for place in range(gamma))


def to_repeat(
    steps: Sequence[Step],
    *,
    gamma: int,
    prompts: Sequence[int],
    prefill_s: float,
    foreign: float,
    end_to_end: EndToEnd | None,
) -> Repeat:
    """`steps` are full ones, `prompts` their lengths. ValueError where no step was full."""
    if not steps:
        raise ValueError(
            "no step had the whole batch decoding: the scheduler held sequences back; raise "
            "engine.args.kv_cache_memory_bytes, or lower sweep.batch_size"
        )
    target_s = _sum(steps, lambda s: s.target_s)
    draft_s = _sum(steps, lambda s: s.draft_s)
    reject_s = _sum(steps, lambda s: s.sample_s)
    seconds = _sum(steps, lambda s: s.period_s or 0.0)
    return Repeat(
        seconds=seconds,
        rounds=len(steps),
        tokens=sum(sum(s.emitted) for s in steps),
        drafted=sum(sum(s.drafted) for s in steps),
        accepted=sum(sum(s.accepted) for s in steps),
        accepted_per_position=accepted_per_position(steps, gamma),
        sequence_rounds=sum(len(s.rows) for s in steps),
        draft_s=draft_s,
        target_s=target_s,
        reject_s=reject_s,
        overhead_s=seconds - target_s - draft_s - reject_s,
        tokens_per_forward=gamma + 1,
        median_target_s=median(s.target_s for s in steps),
        median_draft_s=median(s.draft_s for s in steps),
        mean_context=_sum(steps, lambda s: s.context) / len(steps),
        verified_tokens=sum(s.tokens for s in steps),
        foreign_cpu=foreign,
        prefill_s=prefill_s,
        prompts=len(prompts),
        prompt_tokens=sum(prompts),
        **_whole(end_to_end),
    )


def prefill_seconds(steps: Sequence[Step]) -> float:
    """What passed until only decoding was left to do, replacements included."""
    return _sum(steps, lambda s: 0.0 if s.decoding else s.period_s or s.step_s)


def _whole(run: EndToEnd | None) -> dict[str, Any]:
    if run is None:
        return {}
    decoding = [step for step in run.steps if step.decoding]
    return {
        "end_to_end_s": _sum(decoding, lambda s: s.period_s or s.step_s),
        "end_to_end_tokens": run.output_tokens,
        "request_s": run.request_s,
        "request_tokens": run.request_tokens,
        "scheduled_sequences": sum(len(s.rows) for s in decoding),
        "scheduled_steps": len(decoding),
    }


def _sum(steps: Sequence[Step], part: Callable[[Step], float]) -> float:
    return sum(part(step) for step in steps)
