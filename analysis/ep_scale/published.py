"""What others measured of DeepSeek-V3 with its own drafts, and what they left unsaid."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from analysis.ep_scale.surface import ALPHA, sigma_of

POINTS = Path(__file__).parents[1] / "data" / "ep_published.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPoint:
    """One measured speedup; `per_rank` None: the batch was not printed, acceptance likewise."""

    name: str
    hardware: str
    tp_size: int
    ranks: int
    per_rank: int | None
    gamma: int
    acceptance_length: float | None
    context_tokens: float
    prompt_tokens: int | None  # where end-to-end latency was measured: prefill is part of it
    output_tokens: int | None
    speedup: float
    step_ms: float | None  # of plain decoding, as far as it can be read off
    source: str

    @property
    def assumed_length(self) -> float:
        """What was printed; else all accepted where the threshold was lowered, else ALPHA's."""
        if self.acceptance_length is not None:
            return self.acceptance_length
        if self.tp_size > 1:
            return self.gamma + 1.0
        return sigma_of(ALPHA, self.gamma) * (self.gamma + 1)


def read_points(file: Path = POINTS) -> list[PublishedPoint]:
    with file.open(encoding="utf-8", newline="") as stream:
        return [_point(line) for line in csv.DictReader(stream)]


def _point(line: dict[str, str]) -> PublishedPoint:
    return PublishedPoint(
        name=line["name"],
        hardware=line["hardware"],
        tp_size=int(line["tp_size"]),
        ranks=int(line["ranks"]),
        per_rank=int(line["per_rank"]) if line["per_rank"] else None,
        gamma=int(line["gamma"]),
        acceptance_length=float(line["acceptance_length"]) if line["acceptance_length"] else None,
        context_tokens=float(line["context_tokens"]),
        prompt_tokens=int(line["prompt_tokens"]) if line["prompt_tokens"] else None,
        output_tokens=int(line["output_tokens"]) if line["output_tokens"] else None,
        speedup=float(line["speedup"]),
        step_ms=float(line["step_ms"]) if line["step_ms"] else None,
        source=line["source"],
    )
