"""Which parameters of a fit the data cannot tell apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moesd_dist.theory.moesd.points import Floats
from moesd_dist.theory.moesd.scaling import NAMES

_TAKES_PART = 0.3  # least weight of a parameter in the unseen directions, of at most 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Identifiability:
    """What the slopes of a fit say about its parameters.

    A direction is unseen if a step of one natural unit along it (the least time of its kind, 1
    for lam, e at the largest t for s) changes the speedups by less than `resolution`, rms.
    """

    singular_values: Floats  # [10], falling: rms change of the speedups per unit step
    seen_directions: int  # at most 9 of 10: speedups alone fix no time scale
    inseparable: tuple[str, ...]  # parameters that take part in an unseen direction
    at_limit: tuple[str, ...]  # parameters that the bounds hold, not the data
    resolution: float


def identifiability(
    slopes: Floats, at_limit: tuple[str, ...], *, resolution: float = 0.01
) -> Identifiability:
    """Judge slopes [points, 10], speedup by scaled variable, at the fitted parameters.

    `resolution` is the change of a speedup that measurements can see, by default one per cent of
    a speedup of 1.
    """
    _, values, directions = np.linalg.svd(slopes / np.sqrt(len(slopes)), full_matrices=True)
    padded = np.zeros(len(NAMES))
    padded[: values.size] = values
    unseen = directions[padded < resolution]
    weights = np.sqrt(np.sum(unseen**2, axis=0))
    return Identifiability(
        singular_values=padded,
        seen_directions=int(np.sum(padded >= resolution)),
        inseparable=tuple(np.array(NAMES)[weights > _TAKES_PART].tolist()),
        at_limit=at_limit,
        resolution=resolution,
    )
