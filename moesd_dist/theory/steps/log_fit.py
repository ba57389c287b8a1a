"""Least squares on logarithms, each parameter with a prior, and what the data leave open."""

# Times span orders of magnitude and their noise is relative, so residuals are logarithms. Priors are
# wide: they hold what the data cannot see and give way to what they can. Values of one group were
# measured in turn and share the machine's speed of that minute, its drift: a random effect, whose
# size is found along the way with that of the scatter (see `drift`).

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.optimize import least_squares  # type: ignore[import-untyped, unused-ignore]

from moesd_dist.theory.steps.drift import Groups, drift_share

_Floats = npt.NDArray[np.float64]

_FIRST_SCATTER = 0.03
_LEAST_SCATTER = 1e-4  # below any clock; keeps an exact fit from dividing by nothing
_ROUNDS = 4  # of finding the scatter and fitting with it
_MOST_STEPS = 50
_TOLERANCE = 1e-6  # far below what a prior or a residual weighs
_SLOPE_STEP = 1e-4  # of a prior's spread


class Link(Enum):
    """How a parameter moves with its offset, so that it never leaves its range."""

    LOG = "log"  # positive
    ABOVE_ONE = "above_one"  # 1 plus a positive number
    LOGIT = "logit"  # between 0 and the most it may be

    def moved(self, centre: float, shift: float) -> float:
        """The parameter `shift` away from its centre on the link's scale."""
        if self is Link.LOG:
            return centre * math.exp(shift)
        if self is Link.ABOVE_ONE:
            return 1.0 + (centre - 1.0) * math.exp(shift)
        odds = centre / (1.0 - centre) * math.exp(shift)
        return odds / (1.0 + odds)  # as a share of the most


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """One parameter: its centre, and one standard deviation on the link's scale.

    `most` is for LOGIT alone: an efficiency times it, such as the peak rate of a data sheet.
    """

    name: str
    centre: float
    spread: float
    link: Link = Link.LOG
    most: float = 1.0

    def at(self, offset: float) -> float:
        """The parameter so many spreads from its centre; never beyond what a double holds."""
        shift = min(100.0, max(-100.0, self.spread * offset))
        if self.link is Link.LOGIT:
            return self.most * self.link.moved(self.centre / self.most, shift)
        return self.link.moved(self.centre, shift)


Law = Callable[[dict[str, float]], _Floats]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogFit:
    """Where the parameters settled: offsets from their priors in spreads; [parameters]."""

    priors: tuple[Prior, ...]
    offsets: _Floats
    covariance: _Floats  # of the offsets, the priors included; [parameters, parameters]
    information: _Floats  # of the data alone: J'J; [parameters, parameters]
    residuals: _Floats  # ln(predicted / measured); [values]
    scatter: float  # standard deviation of one residual within its group
    drift: float  # standard deviation of what a group's residuals share
    freedom: float  # residuals less the parameters that the data determine

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(prior.name for prior in self.priors)

    @property
    def values(self) -> dict[str, float]:
        return self.at(self.offsets)

    def at(self, offsets: _Floats) -> dict[str, float]:
        return {p.name: p.at(float(x)) for p, x in zip(self.priors, offsets, strict=True)}

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """From the Jacobian: Student's interval on the link's scale."""
        index = self.names.index(name)
        half = self.quantile(level) * math.sqrt(self.covariance[index, index])
        low, high = (self.priors[index].at(self.offsets[index] + sign * half) for sign in (-1, 1))
        return low, high

    def quantile(self, level: float = 0.95) -> float:
        return float(stats.t.ppf(0.5 + level / 2.0, max(1.0, self.freedom)))

    def learned(self, name: str) -> float:
        """The share of the prior's variance that the data removed: 0 nothing, 1 all of it."""
        index = self.names.index(name)
        return float(np.clip(1.0 - self.covariance[index, index], 0.0, 1.0))


def fit_logs(
    law: Law,
    measured: npt.ArrayLike,
    priors: Sequence[Prior],
    *,
    groups: npt.ArrayLike | None = None,
) -> LogFit:
    """The parameters whose law is nearest to the measured values, all positive; [values].

    `groups` labels the values that share a drift, [values]; without it there is none.
    Raises ValueError if a measured value is not positive and finite.
    """
    values = np.asarray(measured, dtype=np.float64)
    wrong = values[~((values > 0.0) & np.isfinite(values))]
    if wrong.size or not values.size:
        given = wrong[0] if wrong.size else "nothing"
        raise ValueError(f"a fit needs positive finite values, got {given}; leave that point out")
    problem = _Problem(law, np.log(values), tuple(priors), groups)
    offsets, noise = np.zeros(len(priors)), _Noise(scatter=_FIRST_SCATTER, ratio=0.0)
    for _ in range(_ROUNDS):
        offsets = problem.solve(offsets, noise)
        noise = problem.noise(offsets, noise)
    return problem.finish(offsets, noise)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Noise:
    scatter: float
    ratio: float  # variance of the drift over that of the scatter


class _Problem:
    def __init__(
        self, law: Law, logs: _Floats, priors: tuple[Prior, ...], groups: npt.ArrayLike | None
    ) -> None:
        self._law, self._logs, self._priors = law, logs, priors
        self._groups = None if groups is None else Groups(groups)

    def residuals(self, offsets: _Floats) -> _Floats:
        values = {p.name: p.at(float(x)) for p, x in zip(self._priors, offsets, strict=True)}
        return np.asarray(np.log(self._law(values)) - self._logs)

    def slopes(self, offsets: _Floats) -> _Floats:
        """Of the residuals by the offsets; [values, parameters]."""
        steps = np.eye(len(offsets)) * _SLOPE_STEP
        sides = [self.residuals(offsets + s) - self.residuals(offsets - s) for s in steps]
        return np.stack(sides, axis=1) / (2.0 * _SLOPE_STEP)

    def solve(self, start: _Floats, noise: _Noise) -> _Floats:
        identity = np.eye(len(start))
        solved = least_squares(
            lambda x: np.concatenate([self._white(self.residuals(x), noise), x]),
            start,
            jac=lambda x: np.concatenate([self._white(self.slopes(x), noise), identity]),
            x_scale=1.0,
            max_nfev=_MOST_STEPS,
            ftol=_TOLERANCE,
            xtol=_TOLERANCE,
        )
        return np.asarray(solved.x)

    def noise(self, offsets: _Floats, noise: _Noise) -> _Noise:
        """The ratio that makes the residuals likeliest, and the scatter it leaves."""
        misfit = self.residuals(offsets)
        freedom = self._freedom(self._white(self.slopes(offsets), noise))
        ratio = drift_share(self._groups, misfit) if self._groups else 0.0
        left = self._white(misfit, _Noise(scatter=1.0, ratio=ratio))
        return _Noise(
            scatter=max(_LEAST_SCATTER, math.sqrt(float(left @ left) / freedom)), ratio=ratio
        )

    def finish(self, offsets: _Floats, noise: _Noise) -> LogFit:
        slopes = self._white(self.slopes(offsets), noise)
        information = slopes.T @ slopes
        return LogFit(
            priors=self._priors,
            offsets=offsets,
            covariance=np.asarray(np.linalg.inv(information + np.eye(len(offsets))), np.float64),
            information=information,
            residuals=self.residuals(offsets),
            scatter=noise.scatter,
            drift=noise.scatter * math.sqrt(noise.ratio),
            freedom=self._freedom(slopes),
        )

    def _white(self, rows: _Floats, noise: _Noise) -> _Floats:
        """Rows [values, ...] in units of their noise, the drift of their groups taken out."""
        if self._groups is None or noise.ratio == 0.0:
            return rows / noise.scatter
        return self._groups.whiten(rows, noise.ratio) / noise.scatter

    def _freedom(self, slopes: _Floats) -> float:
        """Values less the effective parameters, the trace of the hat matrix; at least 1."""
        information = slopes.T @ slopes
        used = np.trace(np.linalg.solve(information + np.eye(len(information)), information))
        return max(1.0, len(self._logs) - float(used))
