"""Rounds as plain numbers, evaluated for many draft lengths at once and kept for the points to come."""

# A sweep asks for several draft lengths of a batch, and for each of them repeatedly. Formulas of
# arrays take as long for all of them as for one: nearly all of it is the way into numpy and back.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from moesd_dist.records import SweepPoint, WorkloadSpec
from moesd_dist.theory.steps.model import Grid, RoundSeconds

LENGTHS = 16  # draft lengths of one evaluation: 0 to 15, 16 to 31, ...
_KEPT = 1024  # evaluations, of ten kilobytes each

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class OneRound:
    """Seconds of a round's three phases, and the experts that its target forward activates."""

    target_s: float
    draft_s: float
    reject_s: float
    experts: float


class Rounds(Generic[R]):
    """Of one model on one layout: `evaluate` gives a value for each draft length of its grid."""

    def __init__(self, own_top_k: int, evaluate: Callable[[Grid], Sequence[R]]) -> None:
        self._own_top_k, self._evaluate = own_top_k, evaluate
        self._several = lru_cache(maxsize=_KEPT)(self._evaluated)

    def of(self, point: SweepPoint) -> R:
        """Gamma 0 is a step of plain decoding."""
        block, place = divmod(point.gamma, LENGTHS)
        top_k, context = point.top_k or self._own_top_k, context_tokens(point.workload)
        return self._several(point.batch_size, top_k, context, block)[place]

    def _evaluated(
        self, batch_size: int, top_k: int, context_tokens: float, block: int
    ) -> Sequence[R]:
        lengths = np.arange(LENGTHS, dtype=np.float64) + LENGTHS * block
        return self._evaluate(
            Grid(
                batch_size=np.full_like(lengths, batch_size),
                gamma=lengths,
                top_k=np.full_like(lengths, top_k),
                context_tokens=np.full_like(lengths, context_tokens),
            )
        )


def one_rounds(times: RoundSeconds) -> list[OneRound]:
    """Of each point of a column."""
    return rows(
        OneRound,
        target_s=times.target_verify_s,
        draft_s=times.gamma * times.draft_step_s,
        reject_s=times.reject_s,
        experts=times.verify_experts,
    )


def rows(kind: Callable[..., R], **columns: npt.NDArray[np.float64]) -> list[R]:
    """A record for each row of columns that are named as its fields."""
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [kind(**dict(zip(columns, row, strict=True))) for row in values]


def context_tokens(work: WorkloadSpec) -> float:
    """Mean length of a sequence while it is decoded: half way through its output."""
    return (work.prompt_tokens_min + work.prompt_tokens_max + work.output_tokens) / 2
