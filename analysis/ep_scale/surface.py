"""Speedups over ranks and sequences a rank, and what a reader wants to know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.expert_parallel.step import EpGrid, EpModel, EpRoundSeconds

_Floats = npt.NDArray[np.float64]

RANKS = (8, 16, 32, 64, 128, 256, 512)
PER_RANK = tuple(int(b) for b in np.unique(np.round(np.geomspace(1, 512, 46))))
OVER_ALL = tuple(int(2**n) for n in np.arange(16))  # sequences over all ranks
CONTEXT = 4608.0  # tokens: 4,096 in, 1,024 out; DeepSeek reports 4,989 on average
ALPHA = 0.85  # of DeepSeek-V3's second token: 85 to 90 %; further positions as if they were alike


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surface:
    """Arrays are [ranks, batch]; `batch` is sequences a rank, or over all ranks (`of_global`)."""

    ranks: tuple[int, ...]
    batch: tuple[int, ...]
    gamma: int
    sigma: float
    times: EpRoundSeconds

    @property
    def speedup(self) -> _Floats:
        return self.times.speedup(self.sigma)

    @property
    def sweet_spots(self) -> list[int]:
        """The batch of the highest speedup, for each number of ranks."""
        return [self.batch[i] for i in np.argmax(self.speedup, axis=1)]

    @property
    def peaks(self) -> _Floats:
        return np.asarray(self.speedup.max(axis=1))

    @property
    def loss_at_smallest(self) -> _Floats:
        """How much lower the speedup is at the smallest batch than at its peak, as a share."""
        return np.asarray(1.0 - self.speedup[:, 0] / self.peaks)


def sigma_of(alpha: float, gamma: int) -> float:
    """(1 + alpha + .. + alpha^gamma) / (gamma + 1)."""
    return sum(alpha**i for i in range(gamma + 1)) / (gamma + 1)


def per_rank(
    model: EpModel,
    *,
    gamma: int,
    alpha: float = ALPHA,
    context: float = CONTEXT,
    ranks: Sequence[int] = RANKS,
    batch: Sequence[int] = PER_RANK,
) -> Surface:
    """Every number of ranks with every number of sequences a rank."""
    size, each = np.meshgrid(ranks, batch, indexing="ij")
    return _surface(model, size, size * each, ranks, batch, gamma, alpha, context)


def of_global(
    model: EpModel,
    *,
    gamma: int,
    alpha: float = ALPHA,
    context: float = CONTEXT,
    ranks: Sequence[int] = RANKS,
    batch: Sequence[int] = OVER_ALL,
) -> Surface:
    """The same sequences on more and more ranks; below one each, some ranks have none."""
    size, whole = np.meshgrid(ranks, batch, indexing="ij")
    return _surface(model, size, whole, ranks, batch, gamma, alpha, context)


def _surface(
    model: EpModel,
    size: npt.NDArray[np.int64],
    whole: npt.NDArray[np.int64],
    ranks: Sequence[int],
    batch: Sequence[int],
    gamma: int,
    alpha: float,
    context: float,
) -> Surface:
    grid = EpGrid(
        batch_size=whole,
        gamma=gamma,
        top_k=model.step.target.top_k,
        context_tokens=context,
        ranks=size,
    )
    return Surface(
        ranks=tuple(ranks),
        batch=tuple(batch),
        gamma=gamma,
        sigma=sigma_of(alpha, gamma),
        times=model.round_seconds(grid),
    )


def crossing(batch: Sequence[int], values: _Floats, level: float) -> float:
    """The smallest batch from which on `values` exceed `level`; inf if they end below it."""
    above = np.asarray(values) > level
    if not above[-1]:
        return float("inf")
    below = np.flatnonzero(~above)
    return float(batch[below[-1] + 1]) if len(below) else float(batch[0])
