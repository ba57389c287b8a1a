"""Which of several gammas is best, and whether the speedups known so far can tell."""

# A gamma is held against each rival alone: the chance that the rival's speedup exceeds its own by
# more than the tolerance, from a normal law of the difference of their logarithms. Errors that two
# gammas share, such as the baseline's, cancel in that difference: so covariances matter.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

_Floats = npt.NDArray[np.float64]

TOLERANCE = 0.02
CONFIDENCE = 0.9
_LEVEL = 0.95  # of the interval of a speedup, as everywhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When a gamma counts as decided.

    Raises ValueError if the tolerance is negative or the confidence lies outside [0.5, 1).
    """

    tolerance: float = TOLERANCE  # relative gains below it are not worth a decision
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        if not self.tolerance >= 0.0 or not 0.5 <= self.confidence < 1.0:
            raise ValueError(
                "tolerance must be 0 or more and confidence in [0.5, 1), got "
                f"{self.tolerance} and {self.confidence}; such as 0.02 and 0.9"
            )

    @property
    def margin(self) -> float:
        """The tolerance as a difference of logarithms."""
        return math.log1p(self.tolerance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The gamma to run; 0 switches SD off. `low` and `high` hold its speedup at 95 %."""

    gamma: int
    speedup: float
    low: float
    high: float
    rivals: tuple[int, ...] = ()  # that may yet be better by more than the tolerance
    likeliest: int | None = None  # of the rivals
    chance: float = 0.0  # that the likeliest rival is better by more than the tolerance

    @property
    def decided(self) -> bool:
        return not self.rivals


def decide(
    gammas: Sequence[int], log_speedup: npt.ArrayLike, covariance: npt.ArrayLike, rule: Rule
) -> Decision:
    """The decision from log speedups [gamma] and their covariance [gamma, gamma].

    A covariance of one dimension is variances of independent errors. Among gammas whose speedups lie
    within the tolerance of the best, the smallest that is decided is taken; if none is, the smallest:
    a shorter draft is the safer one to deploy. gamma 0 has log speedup 0 and variance 0.

    Raises ValueError if the shapes do not fit or gammas do not rise.
    """
    logs, spread = _checked(gammas, log_speedup, covariance)
    chances = _chances(logs, spread, rule.margin)
    near = np.flatnonzero(logs >= logs.max() - rule.margin)
    settled = [i for i in near.tolist() if chances[i].max() <= 1.0 - rule.confidence]
    index = int(settled[0] if settled else near[0])
    half = float(stats.norm.ppf(0.5 + _LEVEL / 2.0)) * math.sqrt(max(0.0, spread[index, index]))
    rivals = np.flatnonzero(chances[index] > 1.0 - rule.confidence).tolist()
    likeliest = int(np.argmax(chances[index]))
    return Decision(
        gamma=gammas[index],
        speedup=math.exp(logs[index]),
        low=math.exp(logs[index] - half),
        high=math.exp(logs[index] + half),
        rivals=tuple(gammas[i] for i in rivals),
        likeliest=gammas[likeliest] if rivals else None,
        chance=float(chances[index, likeliest]),
    )


def difference_variance(covariance: _Floats, one: int, other: int) -> _Floats:
    """Of the difference of two log speedups, from covariances [..., gamma, gamma]."""
    own = covariance[..., one, one] + covariance[..., other, other]
    return np.maximum(own - covariance[..., one, other] - covariance[..., other, one], 0.0)


def _checked(
    gammas: Sequence[int], log_speedup: npt.ArrayLike, covariance: npt.ArrayLike
) -> tuple[_Floats, _Floats]:
    logs, spread = np.asarray(log_speedup, np.float64), np.asarray(covariance, np.float64)
    spread = np.diag(spread) if spread.ndim == 1 else spread
    count = len(gammas)
    if logs.shape != (count,) or spread.shape != (count, count) or not count:
        raise ValueError(
            f"log speedups and covariance go with {count} gammas, got shapes {logs.shape} and "
            f"{spread.shape}; give [gamma] and [gamma, gamma]"
        )
    if list(gammas) != sorted(set(gammas)):
        raise ValueError(f"gammas must rise, got {list(gammas)}; sort them with their speedups")
    return logs, spread


def _chances(logs: _Floats, spread: _Floats, margin: float) -> _Floats:
    """[chosen, rival]: the chance that the rival is better by more than the margin."""
    gain = logs[None, :] - logs[:, None] - margin
    own = np.diag(spread)
    deviation = np.sqrt(np.maximum(own[None, :] + own[:, None] - spread - spread.T, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        normal = stats.norm.cdf(gain / deviation)
    chances = np.where(deviation > 0.0, normal, (gain > 0.0).astype(np.float64))
    np.fill_diagonal(chances, 0.0)
    return np.asarray(chances, dtype=np.float64)
