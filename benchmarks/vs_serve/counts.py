"""Accepted and drafted tokens, whoever counted them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moesd_dist.records import Repeat


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of one run; a round is one sequence's verification, vLLM's `num_drafts`."""

    rounds: int
    drafted: int
    accepted: int
    per_position: tuple[int, ...]  # rounds whose position 1.. was accepted

    def __str__(self) -> str:
        places = ", ".join(map(str, self.per_position))
        return f"{self.rounds} rounds, {self.drafted} drafted, {self.accepted} accepted ({places})"

    @property
    def length(self) -> float:
        return 1.0 + self.accepted / self.rounds

    @property
    def rate(self) -> float:
        return self.accepted / self.drafted

    @property
    def position_rates(self) -> tuple[float, ...]:
        return tuple(count / self.rounds for count in self.per_position)


def of_steps(steps: Sequence[Mapping[str, Any]], gamma: int) -> Counts:
    """Every row that had drafts to verify, as the probe saw it."""
    rows = [
        (drafted, emitted - 1)
        for step in steps
        for drafted, emitted in zip(step["drafted"], step["emitted"], strict=True)
        if drafted
    ]
    return Counts(
        rounds=len(rows),
        drafted=sum(drafted for drafted, _ in rows),
        accepted=sum(accepted for _, accepted in rows),
        per_position=tuple(sum(a > place for _, a in rows) for place in range(gamma)),
    )


def of_counters(before: Mapping[str, list[float]], after: Mapping[str, list[float]]) -> Counts:
    """vLLM's own `spec_decode` counters around a run."""

    def grown(name: str) -> tuple[int, ...]:
        new = after[f"spec_decode_{name}"]
        old = before.get(f"spec_decode_{name}") or [0.0] * len(new)
        return tuple(round(b - a) for a, b in zip(old, new, strict=True))

    return Counts(
        rounds=sum(grown("num_drafts")),
        drafted=sum(grown("num_draft_tokens")),
        accepted=sum(grown("num_accepted_tokens")),
        per_position=grown("num_accepted_tokens_per_pos"),
    )


def of_bench(result: Mapping[str, Any]) -> Counts:
    """What `vllm bench serve --save-result` writes. ValueError if the server did not speculate."""
    if "spec_decode_num_drafts" not in result:
        raise ValueError("vllm bench serve reports no speculative decoding; was the server told?")
    rounds = int(result["spec_decode_num_drafts"])
    rates = result["spec_decode_per_position_acceptance_rates"]
    return Counts(
        rounds=rounds,
        drafted=int(result["spec_decode_draft_tokens"]),
        accepted=int(result["spec_decode_accepted_tokens"]),
        per_position=tuple(round(rate * rounds) for rate in rates),
    )


def of_repeats(repeats: Sequence[Repeat]) -> Counts:
    """Of our windows."""
    columns = zip(*(r.accepted_per_position for r in repeats), strict=True)
    return Counts(
        rounds=sum(r.sequence_rounds for r in repeats),
        drafted=sum(r.drafted for r in repeats),
        accepted=sum(r.accepted for r in repeats),
        per_position=tuple(map(sum, columns)),
    )
