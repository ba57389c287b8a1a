"""What a model that was fitted on some points says of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.counts import ModelCounts
from moesd_dist.theory.expert_parallel.ranks_fit import ALONE, SharedTerms
from moesd_dist.theory.expert_parallel.round_parts import EpGrid
from moesd_dist.theory.steps.data import StepData
from moesd_dist.theory.steps.fit import StepFit, fit_steps
from moesd_dist.theory.steps.model import Grid, RoundSeconds
from moesd_dist.theory.steps.prediction import Prediction, predict
from moesd_dist.theory.steps.priors import Peaks
from moesd_dist.theory.steps.settings import Expected

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecast:
    """Every array is [points]."""

    speedup: _Floats  # blind: with the acceptance of the fitted points
    speedup_given_sigma: _Floats  # with the acceptance that was measured there
    low: _Floats | None = None  # 95 % of one measurement, blind; None if the model gives none
    high: _Floats | None = None
    times: RoundSeconds | None = None


Forecaster = Callable[[StepData, StepData, Expected], Forecast]
"""From points to fit, points to predict and what to expect there; ValueError if it cannot."""


def step_forecaster(
    target: ModelCounts,
    draft: ModelCounts,
    peaks: Peaks | None = None,
    shared: SharedTerms = ALONE,
) -> Forecaster:
    """Ours: the step-time model; `shared` is what is known of ranks before any is fitted."""

    def forecast(train: StepData, points: StepData, expected: Expected) -> Forecast:
        fit = fit_steps(train, target=target, draft=draft, peaks=peaks, shared=shared)
        return forecast_of(fit, points, expected, shared)

    return forecast


def forecast_of(
    fit: StepFit, points: StepData, expected: Expected, shared: SharedTerms = ALONE
) -> Forecast:
    """A finished fit at points, at the lengths that were expected and not those that were seen.

    `shared` as the fit was told. Raises ValueError for points on several ranks if neither the fit
    nor `shared` knows links.
    """
    found = predict(
        fit,
        _grid(points, expected.context_tokens),
        sigma=expected.sigma,
        sigma_variance=expected.sigma_variance,
        shared=shared,
    )
    spread = np.sqrt(found.spread**2 + _noise_of_one(found, points, expected))
    return Forecast(
        speedup=found.speedup,
        speedup_given_sigma=np.asarray(found.times.speedup(points.sigma)),
        low=found.speedup * np.exp(-found.quantile * spread),
        high=found.speedup * np.exp(found.quantile * spread),
        times=found.times,
    )


def _grid(points: StepData, context: _Floats) -> Grid | EpGrid:
    batch, gamma, top_k, ranks = points.batch_size, points.gamma, points.top_k, points.ranks
    if np.all(ranks == 1.0):
        return Grid(batch_size=batch, gamma=gamma, top_k=top_k, context_tokens=context)
    return EpGrid(batch_size=batch, gamma=gamma, top_k=top_k, context_tokens=context, ranks=ranks)


def _noise_of_one(found: Prediction, points: StepData, expected: Expected) -> _Floats:
    """Variance of the measured logarithms around their expectation; [points].

    The scatter of step times and the counting of acceptance in so many rounds, or what the point's
    own repeats showed, which contains both, where that is more.
    """
    scatter = found.spread_of_one**2 - found.spread**2
    counting = expected.counting_variance / expected.sigma**2
    return np.asarray(np.maximum(scatter + counting, points.speedup_spread**2))
