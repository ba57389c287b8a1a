"""MoESD's speedups at fixed points, and their slopes, as a function of ten scaled variables."""

# The same model as forward_time, arranged for a fit: what depends on the points alone is computed
# once, and every slope is exact.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moesd_dist.theory.moesd.bounds import ParameterBounds
from moesd_dist.theory.moesd.forward_time import Denominator
from moesd_dist.theory.moesd.points import (
    Floats,
    Points,
    Verified,
    activated_experts,
    as_floats,
    expert_loads,
)
from moesd_dist.theory.moesd.scaling import (
    BIAS,
    DRAFT_BIAS,
    DRAFT_K,
    K1,
    K2,
    K3,
    LAM,
    NAMES,
    REJECT_BIAS,
    REJECT_K,
    S,
    Scaling,
)

_PEAKS = [0, 0, 1, 1, 2]  # which of Scaling.largest each row of tokens is divided by
_DRAFT = 4  # the row of the draft; of the target's, even ones decode and odd ones verify


@dataclass(frozen=True, slots=True, eq=False)
class _Growths:
    """G(t) / G(t_max) of each row of tokens, with its slopes; all [5, points]."""

    value: Floats
    by_lam: Floats
    by_log_s: Floats


class Curve:
    """Predicted speedups of fixed points; `scaling` says what the variables mean."""

    def __init__(
        self,
        points: Points,
        bounds: ParameterBounds,
        *,
        verified: Verified = Verified.GAMMA,
        denominator: Denominator = Denominator.EQ_4,
    ) -> None:
        self._batch, self._gamma = as_floats(points.batch_size), as_floats(points.gamma)
        self._paid = as_floats(points.sigma) * (self._gamma + 1.0)  # tokens of a round
        self._denominator, self._ridge = denominator, points.ridge_point
        top_k, forwards = as_floats(points.top_k), (self._batch, points.verified_tokens(verified))
        self._experts = [activated_experts(points.num_experts, top_k, t) for t in forwards]
        loads = [expert_loads(points.num_experts, top_k, t) for t in forwards]
        self._tokens = np.stack([*forwards, *loads, self._batch])
        self.scaling = Scaling(
            bounds,
            ridge_point=points.ridge_point,
            largest_tokens=float(forwards[1].max()),
            largest_load=float(loads[1].max()),
            largest_batch=float(self._batch.max()),
        )

    def speedups(self, variables: Floats) -> Floats:
        """Predicted speedups of variables [10]; [points]."""
        values = variables * self.scaling.units
        ar, round_s = self._seconds(values, self._growths(values).value)
        return self._paid * ar / round_s

    def slopes(self, variables: Floats) -> Floats:
        """How every speedup changes with every variable; [points, 10]."""
        values = variables * self.scaling.units
        growths = self._growths(values)
        ar, round_s = self._seconds(values, growths.value)
        ar_slopes, round_slopes = self._second_slopes(values, growths)
        relative = ar_slopes / ar - round_slopes / round_s
        return (self.scaling.units[:, None] * relative * (self._paid * ar / round_s)).T

    def _growths(self, values: Floats) -> _Growths:
        log_s, knee = values[S], values[LAM] * self._ridge
        at, at_peaks = (_log_slopes(t, log_s, knee) for t in (self._tokens, self.scaling.largest))
        exponent, by_knee, by_log_s = (
            slope - peak[_PEAKS, None] for slope, peak in zip(at, at_peaks, strict=True)
        )
        value = np.exp(exponent)
        return _Growths(value, value * by_knee * self._ridge, value * by_log_s)

    def _seconds(self, values: Floats, growth: Floats) -> tuple[Floats, Floats]:
        """Seconds of a plain step and of a round; both [points]."""
        ar, verify = (
            values[BIAS]
            + values[K1] * growth[row]
            + values[K2] * self._experts[row]
            + values[K3] * growth[row + 2]
            for row in (0, 1)
        )
        draft = values[DRAFT_BIAS] + values[DRAFT_K] * growth[_DRAFT]
        forwards = self._denominator.of(self._gamma, ar=ar, draft=draft, verify=verify)
        return ar, forwards + values[REJECT_BIAS] + values[REJECT_K] * self._batch

    def _second_slopes(self, values: Floats, growths: _Growths) -> tuple[Floats, Floats]:
        """How a plain step and a round change with the unscaled variables; both [10, points]."""
        ar, verify = (self._target_slopes(values, growths, row) for row in (0, 1))
        draft = np.zeros_like(ar)
        draft[DRAFT_BIAS], draft[DRAFT_K] = 1.0, growths.value[_DRAFT]
        draft[LAM] = values[DRAFT_K] * growths.by_lam[_DRAFT]
        draft[S] = values[DRAFT_K] * growths.by_log_s[_DRAFT]
        spent = self._denominator.of(self._gamma, ar=ar, draft=draft, verify=verify)
        spent[REJECT_BIAS] += 1.0
        spent[REJECT_K] += self._batch
        return ar, spent

    def _target_slopes(self, values: Floats, growths: _Growths, row: int) -> Floats:
        """How a target forward changes, a plain step in row 0 and a verification in row 1."""
        slopes = np.zeros((len(NAMES), self._batch.size))
        slopes[BIAS], slopes[K2] = 1.0, self._experts[row]
        slopes[K1], slopes[K3] = growths.value[row], growths.value[row + 2]
        slopes[LAM], slopes[S] = (
            values[K1] * slope[row] + values[K3] * slope[row + 2]
            for slope in (growths.by_lam, growths.by_log_s)
        )
        return slopes


def _log_slopes(tokens: Floats, log_s: float, knee: float) -> tuple[Floats, Floats, Floats]:
    """ln G and its slopes by the knee and by ln s; each in the shape of `tokens`.

    The law is `roofline.log_growth`, unchecked: a fit evaluates it thousands of times.
    """
    past = np.maximum(tokens - knee, 0.0)
    line, below = 1.0 + log_s * past, tokens - past
    by_knee = np.where(past > 0.0, log_s - log_s / line, 0.0)
    return log_s * below + np.log(line), by_knee, below + past / line
