"""Predicted speedups, pulled towards those that were measured at the same or a nearby batch size."""

# A measurement speaks for its neighbourhood and the model for the rest, as far as their errors go
# together (`prediction_errors`), so a schedule does not jump at measured batch sizes. Far from any
# measurement the spread is that of one more of them (`prediction.Prediction.spread_of_one`).

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.acceptance_profile import AcceptanceProfile
from moesd_dist.theory.steps.fit import StepFit
from moesd_dist.theory.steps.prediction_errors import Place, predicted_points

_Floats = npt.NDArray[np.float64]

_LEAST_VARIANCE = 1e-12  # keeps exact speedups (gamma 0) from making a matrix singular


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimate:
    """Log speedups [batch, gamma] and, at each batch size, their covariance [batch, gamma, gamma]."""

    batch_sizes: tuple[int, ...]
    gammas: tuple[int, ...]  # 0 included
    log_speedup: _Floats
    covariance: _Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observed:
    """Measured speedups, [points], and the covariance of their logarithms' noise, [points, points]."""

    batch_size: _Floats
    gamma: _Floats
    log_speedup: _Floats
    noise: _Floats


def estimate(
    fit: StepFit,
    acceptance: AcceptanceProfile,
    batch_sizes: Sequence[int],
    gammas: Sequence[int],
    place: Place,
    observed: Observed | None = None,
) -> Estimate:
    """What fit, acceptance and measurements together say at every batch size and gamma."""
    batch, gamma = (grid.ravel() for grid in np.meshgrid(batch_sizes, gammas, indexing="ij"))
    wanted = predicted_points(fit, acceptance, batch, gamma, place)
    logs, blocks = wanted.logs, wanted.blocks(len(gammas))
    if observed is not None:
        known = predicted_points(fit, acceptance, observed.batch_size, observed.gamma, place)
        between = wanted.covariance(known)
        own = known.covariance(known) + observed.noise + _LEAST_VARIANCE * np.eye(len(known.logs))
        gain = np.linalg.solve(own, between.T).T
        logs = logs + gain @ (observed.log_speedup - known.logs)
        rows = (len(batch_sizes), len(gammas), -1)
        blocks = blocks - gain.reshape(rows) @ between.reshape(rows).transpose(0, 2, 1)
        blocks = np.where(np.abs(blocks) < _LEAST_VARIANCE, 0.0, blocks)  # rounding may end below 0
    return Estimate(
        batch_sizes=tuple(batch_sizes),
        gammas=tuple(gammas),
        log_speedup=logs.reshape(len(batch_sizes), len(gammas)),
        covariance=blocks,
    )


def measured_only(observed: Observed) -> Estimate:
    """Without a model: the measured batch sizes alone; what was not measured is nan.

    A point that was measured twice counts by both, weighted by their noise.
    """
    sizes = tuple(int(b) for b in np.unique(observed.batch_size))
    gammas = (0, *(int(g) for g in np.unique(observed.gamma) if g))
    logs = np.full((len(sizes), len(gammas)), np.nan)
    logs[:, 0] = 0.0
    blocks = np.zeros((len(sizes), len(gammas), len(gammas)))
    for row, size in enumerate(sizes):
        here = np.flatnonzero(observed.batch_size == size)
        found = [gammas.index(int(g)) for g in observed.gamma[here]]
        columns = sorted(set(found))
        design = np.array([[float(f == c) for c in columns] for f in found])
        noise = observed.noise[np.ix_(here, here)] + _LEAST_VARIANCE * np.eye(len(here))
        weighted = np.linalg.solve(noise, design)
        covariance = np.linalg.inv(design.T @ weighted)
        logs[row, columns] = covariance @ weighted.T @ observed.log_speedup[here]
        blocks[row][np.ix_(columns, columns)] = covariance
    return Estimate(batch_sizes=sizes, gammas=gammas, log_speedup=logs, covariance=blocks)
