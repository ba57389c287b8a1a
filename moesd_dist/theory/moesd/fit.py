"""The ten parameters of MoESD's model that explain measured speedups best."""

# Source: MoESD (arXiv 2505.19645), Algorithm 1: bounded least squares by Trust Region Reflective.
# The loss is 1/2 sum (predicted - measured)^2.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moesd_dist.theory.moesd.bounds import ParameterBounds
from moesd_dist.theory.moesd.curve import Curve
from moesd_dist.theory.moesd.forward_time import Denominator, MoesdParameters
from moesd_dist.theory.moesd.identifiability import Identifiability, identifiability
from moesd_dist.theory.moesd.points import Floats, Observations, Verified, as_floats
from moesd_dist.theory.moesd.scaling import NAMES
from moesd_dist.theory.moesd.trust_region import Found, Search

_ALIKE = 0.01  # searches whose costs differ by less than this share explain the data equally well
_GOOD_ENOUGH = 1e-6  # rms of the residuals: far below what any speedup is measured to


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MoesdFit:
    """What a fit found; `residuals` is predicted minus measured speedup, [points]."""

    parameters: MoesdParameters
    residuals: Floats
    evaluations: int  # of all points at once, slopes counted once each
    identifiable: Identifiability

    @property
    def sum_of_squares(self) -> float:
        return float(self.residuals @ self.residuals)

    @property
    def cost(self) -> float:
        """The loss: half the sum of squares. The paper's printed "MSE" is of this size."""
        return 0.5 * self.sum_of_squares

    @property
    def mse(self) -> float:
        """Mean squared residual of a point."""
        return self.sum_of_squares / self.residuals.size


def fit(
    observations: Observations,
    bounds: ParameterBounds,
    *,
    start: MoesdParameters | None = None,
    multistart: int = 3,
    seed: int = 0,
    verified: Verified = Verified.GAMMA,
    denominator: Denominator = Denominator.EQ_4,
) -> MoesdFit:
    """The best of `multistart` searches within the bounds; the same seed gives the same fit.

    The first search begins at `start`, moved inside the bounds, or at a middle of our own choice;
    the rest begin at random. An exact fit ends the search early. Of searches that explain the
    points equally well, the one whose growth is gentlest (least s) is taken.

    The paper's s up to 2 lets noise be explained by a G that jumps between two points: 2 % of it on
    21 points can put a prediction at a larger batch off by 97 %. With s at most 1.05 in `bounds`
    the loss is the same to 2 % and the worst error falls to 17 %; neither is safe beyond the gate
    tokens of the points.

    Raises ValueError if there are fewer points than parameters or only one batch size, if
    multistart is below 1, or if the bounds limit k1, k3 or draft_k from above.
    """
    _check(observations, multistart)
    curve = Curve(observations, bounds, verified=verified, denominator=denominator)
    search = Search(curve, as_floats(observations.speedup))
    first = search.middle() if start is None else search.inside(curve.scaling.variables(start))
    found, random = [search.run(first)], np.random.default_rng(seed)
    while len(found) < multistart and not _is_exact(found[-1].residuals):
        found.append(search.run(search.somewhere(random)))
    best = _gentlest_of_the_best(found)
    return MoesdFit(
        parameters=curve.scaling.parameters(best.variables),
        residuals=best.residuals,
        evaluations=search.evaluations,
        identifiable=identifiability(curve.slopes(best.variables), best.at_limit),
    )


def _gentlest_of_the_best(found: list[Found]) -> Found:
    least = min(one.cost for one in found)
    alike = [one for one in found if one.cost <= least * (1.0 + _ALIKE) or _is_exact(one.residuals)]
    return min(alike, key=lambda one: one.steepness)


def _is_exact(residuals: Floats) -> bool:
    return bool(np.sqrt(np.mean(residuals**2)) < _GOOD_ENOUGH)


def _check(observations: Observations, multistart: int) -> None:
    if len(observations) < len(NAMES):
        raise ValueError(
            f"ten parameters need at least {len(NAMES)} points, got {len(observations)};"
            " measure more points"
        )
    sizes = np.unique(as_floats(observations.batch_size))
    if sizes.size == 1:
        raise ValueError(
            f"a fit needs several batch sizes, got only {sizes[0]:.0f}; growth cannot be told"
            " from constants at one of them: measure another"
        )
    if not multistart >= 1:
        raise ValueError(f"multistart must be at least 1, got {multistart}; 3 is the default")
