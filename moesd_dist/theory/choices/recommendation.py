"""gamma by batch size: a number, 0 for SD off, or undecided with the point that would tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.choices.decision import Decision, Rule, decide, difference_variance

_Floats = npt.NDArray[np.float64]

_RULE = Rule()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Decision):
    """The decision at one batch size."""

    batch_size: int
    measure_next: tuple[int, int] | None = None  # (batch size, gamma); None once decided


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticChoice(Decision):
    """One gamma for all batch sizes; its speedup is their weighted geometric mean."""

    worst_batch_size: int  # where this gamma gains least, or loses most
    worst_speedup: float
    measure_next: tuple[int, int] | None = None


def choose(
    batch_size: int,
    gammas: Sequence[int],
    log_speedup: npt.ArrayLike,
    covariance: npt.ArrayLike,
    *,
    rule: Rule = _RULE,
) -> Choice:
    """The choice from log speedups [gamma] and their covariance, as `decide` takes them.

    Of the chosen gamma and its likeliest rival the one less well known is to be measured next.
    """
    decision = decide(gammas, log_speedup, covariance, rule)
    choice = Choice(**asdict(decision), batch_size=batch_size)
    if decision.likeliest is None:
        return choice
    own = np.asarray(covariance, np.float64)
    variance = dict(zip(gammas, own if own.ndim == 1 else np.diag(own), strict=True))
    unsure = max((decision.gamma, decision.likeliest), key=lambda gamma: variance[gamma])
    return replace(choice, measure_next=(batch_size, unsure))


def static_choice(
    batch_sizes: Sequence[int],
    gammas: Sequence[int],
    log_speedup: npt.ArrayLike,
    covariance: npt.ArrayLike,
    *,
    weights: npt.ArrayLike = 1.0,
    rule: Rule = _RULE,
) -> StaticChoice:
    """One gamma for every batch size: the best geometric mean of speedups [batch, gamma].

    `covariance` is [batch, gamma, gamma], `weights` [batch] the share of tokens at each, in any unit.
    How errors correlate between batch sizes is not asked for: the mean covariance bounds that of
    the mean, whatever they do (Jensen).

    Raises ValueError as `decide` does, or if weights are negative or all 0.
    """
    logs, blocks = np.asarray(log_speedup, np.float64), np.asarray(covariance, np.float64)
    share = _shares(weights, len(batch_sizes))
    decision = decide(gammas, share @ logs, np.tensordot(share, blocks, axes=1), rule)
    column = list(gammas).index(decision.gamma)
    worst = int(np.argmin(logs[:, column]))
    return StaticChoice(
        **asdict(decision),
        worst_batch_size=batch_sizes[worst],
        worst_speedup=math.exp(logs[worst, column]),
        measure_next=_least_sure(batch_sizes, gammas, blocks, decision),
    )


def intervals(choices: Sequence[Choice]) -> list[tuple[int, int, int]]:
    """(first, last, gamma) from batch size 1 to the largest chosen, without gaps.

    Neighbours of one gamma are joined. A batch size between two choices takes the gamma of the
    smaller one, so a boundary lies at the next batch size that was evaluated; below the first choice
    its own gamma holds.

    Raises ValueError if there are no choices or their batch sizes do not rise.
    """
    sizes = [choice.batch_size for choice in choices]
    if not sizes or sizes[0] < 1 or sizes != sorted(set(sizes)):
        raise ValueError(f"intervals need batch sizes from 1 on in rising order, got {sizes}")
    ends = [*(size - 1 for size in sizes[1:]), sizes[-1]]
    joined: list[tuple[int, int, int]] = []
    for first, last, choice in zip([1, *sizes[1:]], ends, choices, strict=True):
        if joined and joined[-1][2] == choice.gamma:
            first = joined.pop()[0]
        joined.append((first, last, choice.gamma))
    return joined


def _shares(weights: npt.ArrayLike, count: int) -> _Floats:
    given = np.broadcast_to(np.asarray(weights, np.float64), (count,))
    if not (np.all(given >= 0.0) and given.sum() > 0.0):
        raise ValueError(f"weights must be 0 or more and not all 0, got {given}; use shares")
    return np.asarray(given / given.sum())


def _least_sure(
    batch_sizes: Sequence[int], gammas: Sequence[int], blocks: _Floats, decision: Decision
) -> tuple[int, int] | None:
    """Where the chosen gamma and its likeliest rival differ least surely, and the vaguer of them."""
    if decision.likeliest is None:
        return None
    pair = [list(gammas).index(g) for g in (decision.gamma, decision.likeliest)]
    row = int(np.argmax(difference_variance(blocks, *pair)))
    vaguer = max(pair, key=lambda column: float(blocks[row, column, column]))
    return batch_sizes[row], gammas[vaguer]
