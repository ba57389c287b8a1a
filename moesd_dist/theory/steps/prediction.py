"""Speedups that were not measured, each with the interval that the fit and the acceptance leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.expert_parallel.ranks_fit import ALONE, SharedTerms, shared_model
from moesd_dist.theory.expert_parallel.round_parts import EpGrid
from moesd_dist.theory.steps.fit import StepFit
from moesd_dist.theory.steps.model import Grid, RoundSeconds

_Floats = npt.NDArray[np.float64]

_SLOPE_STEP = 1e-3  # of a prior's spread


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """Speedups at points, [points]; spreads are standard deviations of logarithms.

    `spread` is of the expected speedup: parameters and acceptance. `spread_of_one` is of one more
    measurement there: the scatter of its step times on top.
    """

    speedup: _Floats
    spread: _Floats
    spread_of_one: _Floats
    quantile: float  # spreads of an interval's half width
    times: RoundSeconds
    sigma: _Floats

    @property
    def low(self) -> _Floats:
        return self.speedup * np.exp(-self.quantile * self.spread)

    @property
    def high(self) -> _Floats:
        return self.speedup * np.exp(self.quantile * self.spread)

    @property
    def low_of_one(self) -> _Floats:
        return self.speedup * np.exp(-self.quantile * self.spread_of_one)

    @property
    def high_of_one(self) -> _Floats:
        return self.speedup * np.exp(self.quantile * self.spread_of_one)


def predict(
    fit: StepFit,
    grid: Grid | EpGrid,
    *,
    sigma: npt.ArrayLike,
    sigma_variance: npt.ArrayLike = 0.0,
    level: float = 0.95,
    shared: SharedTerms = ALONE,
) -> Prediction:
    """Eq. 4 with fitted seconds at every point of the grid, raveled; [points].

    A grid with ranks is of ranks that share experts; `shared` is what the fit was told of them, or
    a calibration for the fit of one rank.

    `sigma_variance` is what counting left open of sigma. Parts of the fit and sigma are independent,
    so their variances add.
    """
    times = _times(fit, grid, shared)
    shape = times.round_s.shape
    given, variance = (
        np.broadcast_to(np.asarray(v, np.float64), shape) for v in (sigma, sigma_variance)
    )
    known = _parameter_variance(fit, grid, shared) + variance / given**2
    return Prediction(
        speedup=times.speedup(given),
        spread=np.sqrt(known),
        spread_of_one=np.sqrt(known + _scatter_variance(fit, times)),
        quantile=fit.parts["target"].quantile(level),
        times=times,
        sigma=given,
    )


def log_slopes(
    fit: StepFit, grid: Grid | EpGrid, shared: SharedTerms = ALONE
) -> dict[str, _Floats]:
    """How the logarithm of each speedup moves with each offset, by part; [points, parameters]."""
    centre = {name: part.offsets for name, part in fit.parts.items()}

    def log_speedup(name: str, offsets: _Floats) -> _Floats:
        times = _times(fit, grid, shared, centre | {name: offsets})
        return np.log(times.step_s / times.round_s).ravel()

    slopes = {}
    for name, offsets in centre.items():
        steps = np.eye(len(offsets)) * _SLOPE_STEP
        sides = [log_speedup(name, offsets + s) - log_speedup(name, offsets - s) for s in steps]
        slopes[name] = np.stack(sides, axis=-1) / (2.0 * _SLOPE_STEP)
    return slopes


def _times(
    fit: StepFit,
    grid: Grid | EpGrid,
    shared: SharedTerms,
    offsets: dict[str, _Floats] | None = None,
) -> RoundSeconds:
    """At the fit's own parameters, or at other offsets of all its parts."""
    offsets = offsets or {name: part.offsets for name, part in fit.parts.items()}
    model = fit.model_at(offsets)
    if isinstance(grid, Grid):
        return model.round_seconds(grid)
    values = fit.parts["target"].at(offsets["target"])
    return shared_model(model, values, shared).round_seconds(grid).whole


def _parameter_variance(fit: StepFit, grid: Grid | EpGrid, shared: SharedTerms) -> _Floats:
    shape = grid.arrays()[0].shape
    slopes = log_slopes(fit, grid, shared)
    variance = sum(
        np.einsum("ni,ij,nj->n", slope, fit.parts[name].covariance, slope)
        for name, slope in slopes.items()
    )
    return np.asarray(variance).reshape(shape)


def _scatter_variance(fit: StepFit, times: RoundSeconds) -> _Floats:
    """Of one measured speedup: each part's scatter by its share of the step or of the round."""
    scatter = {name: part.scatter**2 for name, part in fit.parts.items()}
    parts = (
        ("target", times.target_decode_s / times.step_s),
        ("reject", times.baseline_reject_s / times.step_s),
        ("target", times.target_verify_s / times.round_s),
        ("draft", times.gamma * times.draft_step_s / times.round_s),
        ("reject", times.reject_s / times.round_s),
    )
    return np.asarray(sum(scatter[name] * share**2 for name, share in parts))
