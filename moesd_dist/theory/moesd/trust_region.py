"""Searches for the scaled variables that explain measured speedups best, within their bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares  # type: ignore[import-untyped, unused-ignore]

from moesd_dist.theory.moesd.curve import Curve
from moesd_dist.theory.moesd.points import Floats
from moesd_dist.theory.moesd.scaling import NAMES, S

_MOST_STEPS = 100  # of one search; further ones are better spent on another start
_AT_LIMIT = 1e-4  # of a unit: the search stays strictly inside, so it never ends on a limit


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Where one search ended; residuals are predicted minus measured speedup, [points]."""

    variables: Floats
    residuals: Floats
    at_limit: tuple[str, ...]

    @property
    def cost(self) -> float:
        return 0.5 * float(self.residuals @ self.residuals)

    @property
    def steepness(self) -> float:
        """ln(s) times the largest t."""
        return float(self.variables[S])


class Search:
    """Trust Region Reflective over the variables that the bounds leave free."""

    def __init__(self, curve: Curve, measured: Floats) -> None:
        self._curve, self._measured = curve, measured
        self.low, self.high = curve.scaling.limits()
        self.free = np.flatnonzero(self.high > self.low)
        self.evaluations = 0

    def middle(self) -> Floats:
        """Twice the least times, a knee at half the ridge and G(t_max) of about e."""
        return self.inside(np.array([2, 0.5, 2, 0.5, 2, 0.5, 0.5, 0.5, 0.5, 1.0]))

    def somewhere(self, random: np.random.Generator) -> Floats:
        """A random point: terms without an upper limit up to four times the least target time."""
        variables = random.uniform(self.low, np.clip(5.0, self.low, self.high))
        variables[S] = np.exp(random.uniform(np.log(0.05), np.log(20.0)))
        return self.inside(variables)

    def inside(self, variables: Floats) -> Floats:
        return np.clip(variables, self.low, self.high)

    def run(self, start: Floats) -> Found:
        """One search from `start`, counted."""
        found = least_squares(
            lambda free: self._curve.speedups(self._whole(start, free)) - self._measured,
            start[self.free],
            jac=lambda free: self._curve.slopes(self._whole(start, free))[:, self.free],
            bounds=(self.low[self.free], self.high[self.free]),
            method="trf",
            x_scale="jac",
            max_nfev=_MOST_STEPS,
        )
        self.evaluations += found.nfev + found.njev
        variables = self._whole(start, found.x)
        return Found(variables, found.fun, self._at_limit(variables))

    def _whole(self, start: Floats, free: Floats) -> Floats:
        variables = start.copy()
        variables[self.free] = free
        return variables

    def _at_limit(self, variables: Floats) -> tuple[str, ...]:
        near = np.minimum(variables - self.low, self.high - variables) < _AT_LIMIT
        return tuple(np.array(NAMES)[near].tolist())
