"""What moves the errors of predicted speedups together: parameters, acceptance, and the law's misfit."""

# A fit is wrong in two ways: its parameters are uncertain, and its law misses each forward by its
# scatter. The second error is taken as smooth: forwards an octave apart, in sequences or in tokens
# of a sequence, share 1/e of it.

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.acceptance_profile import AcceptanceProfile
from moesd_dist.theory.steps.fit import StepFit
from moesd_dist.theory.steps.model import Grid, RoundSeconds
from moesd_dist.theory.steps.prediction import log_slopes

_Floats = npt.NDArray[np.float64]

_OCTAVES = 1.0  # over which a misfit falls to 1/e
_RATE_STEP = 1e-4  # of a rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What batch size and gamma leave open of a forward."""

    top_k: float
    context_tokens: float  # mean length of a sequence while it is decoded


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictedPoints:
    """Predictions at points, and what moves their errors; every array's first axis is [points]."""

    batch: _Floats
    logs: _Floats
    factors: (
        _Floats  # [points, any]: their products are the covariance of parameters and acceptance
    )
    terms: tuple[_Term, ...]

    def covariance(self, other: PredictedPoints) -> _Floats:
        """[own points, other's points]: known errors and the misfit, which fades with distance."""
        apart = _octaves(self.batch, other.batch)
        total = self.factors @ other.factors.T
        for one, two in product(self.terms, other.terms):
            if one.part == two.part:
                alike = np.exp(-(apart + _octaves(one.each, two.each)) / _OCTAVES)
                total += np.outer(one.weight, two.weight) * alike
        return np.asarray(total)

    def blocks(self, size: int) -> _Floats:
        """Of consecutive points, so many at a time: [block, size, size]."""
        starts = range(0, len(self.batch), size)
        parts = [self._take(slice(start, start + size)) for start in starts]
        return np.stack([part.covariance(part) for part in parts])

    def _take(self, rows: slice) -> PredictedPoints:
        return PredictedPoints(
            batch=self.batch[rows],
            logs=self.logs[rows],
            factors=self.factors[rows],
            terms=tuple(
                _Term(part=t.part, weight=t.weight[rows], each=t.each[rows]) for t in self.terms
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Term:
    """One forward of a round or of a step: what its misfit does to the log speedup."""

    part: str
    weight: _Floats  # scatter times the forward's share of its round or step
    each: _Floats  # tokens of a sequence


def predicted_points(
    fit: StepFit,
    acceptance: AcceptanceProfile,
    batch: npt.ArrayLike,
    gamma: npt.ArrayLike,
    place: Place,
) -> PredictedPoints:
    sizes, drafted = np.asarray(batch, np.float64), np.asarray(gamma, np.float64)
    grid = Grid(
        batch_size=sizes,
        gamma=drafted,
        top_k=place.top_k,
        context_tokens=place.context_tokens,
    )
    times = fit.model.round_seconds(grid)
    tokens = _by_gamma(acceptance.acceptance_length, drafted)
    return PredictedPoints(
        batch=sizes,
        logs=np.log(times.speedup(tokens / (drafted + 1.0))),
        factors=np.hstack([_parameter_factors(fit, grid), _rate_factors(acceptance, drafted)]),
        terms=_terms(fit, times),
    )


def _octaves(one: _Floats, other: _Floats) -> _Floats:
    return np.asarray(np.abs(np.log2(one)[:, None] - np.log2(other)[None, :]))


def _terms(fit: StepFit, times: RoundSeconds) -> tuple[_Term, ...]:
    one, each = np.ones_like(times.gamma), times.gamma + 1.0
    shares = [
        ("target", times.target_decode_s / times.step_s, one),
        ("reject", times.baseline_reject_s / times.step_s, one),
        ("target", -times.target_verify_s / times.round_s, each),
        ("draft", -times.gamma * times.draft_step_s / times.round_s, one),
        ("reject", -times.reject_s / times.round_s, each),
    ]
    return tuple(
        _Term(part=part, weight=fit.parts[part].scatter * share, each=tokens)
        for part, share, tokens in shares
    )


def _parameter_factors(fit: StepFit, grid: Grid) -> _Floats:
    """Factors whose products are the covariance that the fitted parameters leave; [points, any]."""
    slopes = log_slopes(fit, grid)
    return np.concatenate(
        [slope @ np.linalg.cholesky(fit.parts[name].covariance) for name, slope in slopes.items()],
        axis=1,
    )


def _rate_factors(acceptance: AcceptanceProfile, gamma: _Floats) -> _Floats:
    """The same of the acceptance rates, by the rounds behind each; none if those are unknown."""
    columns = [
        _by_gamma(partial(_length_slope, acceptance, place), gamma)
        * math.sqrt(acceptance.dispersion * rate * (1.0 - rate) / tried)
        for place, (rate, tried) in enumerate(
            zip(acceptance.conditional, acceptance.tried, strict=False)
        )
    ]
    return np.stack(columns, axis=1) if columns else np.zeros((len(gamma), 0))


def _by_gamma(law: Callable[[int], float], gamma: _Floats) -> _Floats:
    values = {g: law(int(g)) for g in np.unique(gamma)}
    return np.array([values[g] for g in gamma])


def _length_slope(acceptance: AcceptanceProfile, place: int, gamma: int) -> float:
    """d ln(acceptance length) / d rate of one position."""
    rates = list(acceptance.conditional)
    step = _RATE_STEP * rates[place]
    if not step:
        return 0.0
    rates[place] -= step
    moved = AcceptanceProfile(conditional=tuple(rates))
    ratio = acceptance.acceptance_length(gamma) / moved.acceptance_length(gamma)
    return math.log(ratio) / step
