"""MoESD's ten parameters as variables of order one, with no G(t) that could overflow."""

# k G(t) is written as c G(t) / G(t_max) with c = k G(t_max), seconds at the largest t of the data:
# the quotient is a difference of logarithms, at most 1 whatever s is.

from __future__ import annotations

import math
from dataclasses import astuple, fields

import numpy as np

from moesd_dist.theory.moesd.bounds import ParameterBounds
from moesd_dist.theory.moesd.forward_time import MoesdParameters
from moesd_dist.theory.moesd.points import Floats
from moesd_dist.theory.moesd.scaled_growth import scaled_growth
from moesd_dist.theory.roofline import log_growth

NAMES = tuple(field.name for field in fields(MoesdParameters))
BIAS, K1, K2, K3, DRAFT_BIAS, DRAFT_K, REJECT_BIAS, REJECT_K, LAM, S = range(len(NAMES))
_GROWN = [K1, K3, DRAFT_K]
# Beyond it s^t spans more than any two times could, and k = c / G(t_max) nears the least double.
_LARGEST_EXPONENT = 600.0


class Scaling:
    """Parameters to variables and back, for data with these largest numbers of tokens.

    Variables are [10] in the order of `NAMES`: bias, k2 and draft_bias over their lower limits; c
    of k1 and k3 over the bias's, of draft_k over the draft_bias's; reject_* over their upper
    limits at the largest batch; lam as it is; ln(s) t_max in the place of s.
    """

    def __init__(
        self,
        bounds: ParameterBounds,
        *,
        ridge_point: float,
        largest_tokens: float,  # at a gate, in a verification
        largest_load: float,  # per activated expert, in a verification
        largest_batch: float,
    ) -> None:
        self._bounds, self._ridge = bounds, ridge_point
        self.largest = np.array([largest_tokens, largest_load, largest_batch])  # as _GROWN
        target, draft = bounds.bias[0], bounds.draft_bias[0]
        reject = bounds.reject_bias[1] or target
        per_sequence = (bounds.reject_k[1] or target) / largest_batch
        times = [target, target, bounds.k2[0], target, draft, draft, reject, per_sequence]
        self.units = np.array([*times, 1.0, 1.0 / largest_tokens])

    def limits(self) -> tuple[Floats, Floats]:
        """The least and the most of every variable; both [10].

        Raises ValueError if k1, k3 or draft_k is limited by anything but 0, or if s can only be so
        large that G exceeds a double.
        """
        intervals = [getattr(self._bounds, name) for name in NAMES]
        low, high = np.array(intervals, dtype=np.float64).T
        for place in _GROWN:
            _check_unlimited(NAMES[place], *intervals[place])
        steepest = _LARGEST_EXPONENT / min(self.largest.max(), self._ridge * high[LAM])
        low[S], high[S] = math.log(low[S]), min(math.log(high[S]), steepest)
        if low[S] > high[S]:
            raise ValueError(
                f"s must be able to go down to {math.exp(steepest):.4f}, where G is still a double,"
                f" got a lower limit of {math.exp(low[S])}; use (1.0, 2.0)"
            )
        return low / self.units, high / self.units

    def variables(self, parameters: MoesdParameters) -> Floats:
        """The variables of these parameters, [10]; ValueError if a term exceeds a double."""
        values = np.array(astuple(parameters), dtype=np.float64)
        curve = {"s": parameters.s, "ridge": self._ridge, "lam": parameters.lam}
        for place, peak in zip(_GROWN, self.largest, strict=True):
            values[place] = float(scaled_growth(float(values[place]), peak, **curve))
        values[S] = math.log(values[S])
        scaled: Floats = values / self.units
        return scaled

    def parameters(self, variables: Floats) -> MoesdParameters:
        """The paper's parameters of these variables, in seconds."""
        values = variables * self.units
        values[S] = math.exp(values[S])
        peaks = log_growth(self.largest, s=values[S], ridge=self._ridge, lam=values[LAM])
        values[_GROWN] *= np.exp(-peaks)
        return MoesdParameters(**dict(zip(NAMES, values.tolist(), strict=True)))


def _check_unlimited(name: str, low: float, high: float) -> None:
    if low > 0.0 or high < math.inf:
        raise ValueError(
            f"{name} can only be limited to 0 or more in this fit, got {low} and {high};"
            " use (0.0, math.inf)"
        )
