"""Speedup that is lost by deploying the gamma that a model recommends."""

# The best of several noisy speedups is too high by chance, so a perfect model has some regret.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.steps.data import StepData

_Floats = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Regret:
    """Over cells, each one baseline with its gammas; shares: 0.02 is 2 % of the speedup."""

    mean: float
    worst: float
    cells: int


def regret_of(predicted: npt.ArrayLike, measured: npt.ArrayLike) -> float:
    """Best measured speedup over the one at the best predicted, minus 1; [gammas] of one cell.

    Not to speculate, a speedup of 1, is a choice for both.
    """
    ours, theirs = np.append(predicted, 1.0), np.append(measured, 1.0)
    return float(theirs.max() / theirs[ours.argmax()] - 1.0)


def regrets(predictions: Sequence[tuple[_Floats, _Indices]], data: StepData) -> Regret:
    """Of predictions of all points [points] with the indices that were held back.

    A cell counts if any of its points was held back; all its gammas are candidates.
    """
    found = [
        regret_of(predicted[data.group == cell], data.speedup[data.group == cell])
        for predicted, held in predictions
        for cell in np.unique(data.group[held])
    ]
    return Regret(mean=float(np.mean(found)), worst=float(np.max(found)), cells=len(found))
