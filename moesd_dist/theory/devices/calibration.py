"""What an engine achieves, learned from peak speedups on one device and carried to others."""

# Speedups are ratios, so they cannot tell all seconds stretched alike from a slower device. Each
# figure therefore has a prior, and the interval keeps what the data leave open.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares  # type: ignore[import-untyped, unused-ignore]

from moesd_dist.theory.devices.operations import Achieved
from moesd_dist.theory.devices.transfer import Peak, Setting, peak_speedup

_Floats = npt.NDArray[np.float64]

# Scatter of the logarithm of one published peak: rows of the same models, device and gamma differ
# by this much once sigma is divided out (pooled over the 2xA800 rows; see the test that prints it).
ROW_SCATTER = 0.05
NORMAL_95 = 1.96  # two-sided

# Centre and spread (one standard deviation) of each figure: efficiencies and shares on the logit
# scale, the others on the natural logarithm's. Ours, from experience with such engines; the spread
# of compute_efficiency was chosen by cross-validation within 2xA800 (see docs/transfer.md).
_LOGIT_PRIORS = {
    "memory_efficiency": (0.75, 0.6),  # 0.62 to 0.85: large reads of HBM
    "compute_efficiency": (0.3, 1.0),  # 0.14 to 0.54: products of tens of rows, tiles half full
    "clocked_share": (0.5, 1.5),  # 0.18 to 0.82: nothing on one device can tell
}
_LOG_PRIORS = {
    "logit_passes": (15.0, 0.7),  # softmax, top-k and top-p, sampling, each reads and writes
    "forward_overhead_s": (2e-3, 0.7),  # 1 to 4 ms: a Python scheduler and its inputs
    "layer_overhead_s": (100e-6, 0.7),  # 50 to 200 us: ten to twenty small kernels
    "round_overhead_s": (2e-3, 0.7),  # 1 to 4 ms: one more scheduler pass
}
NAMES = (*_LOGIT_PRIORS, *_LOG_PRIORS)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakRow:
    """One published peak speedup; sigma is measured, not modelled."""

    setting: Setting
    gamma: int
    sigma: float
    speedup: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A value and its two-sided 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Where the figures settled: offsets from their priors in prior spreads, and covariance."""

    offsets: _Floats  # [figure], in the order of NAMES
    covariance: _Floats  # [figure, figure], from the Jacobian; the priors included

    @property
    def achieved(self) -> Achieved:
        return achieved_at(self.offsets)

    def figure(self, name: str) -> Interval:
        """One figure and its interval; near the prior's own where the data say nothing."""
        index = NAMES.index(name)
        step = np.zeros(len(NAMES))
        step[index] = NORMAL_95 * math.sqrt(self.covariance[index, index])
        low, value, high = (
            float(getattr(achieved_at(self.offsets + sign * step), name)) for sign in (-1, 0, 1)
        )
        return Interval(value=value, low=low, high=high)

    def peak(self, setting: Setting, *, gamma: int, sigma: float) -> Peak:
        """The expected peak; raises ValueError as `transfer.speedup_curve` does."""
        return peak_speedup(setting, self.achieved, gamma=gamma, sigma=sigma)

    def predict(self, setting: Setting, *, gamma: int, sigma: float) -> Interval:
        """The peak of one future row: the figures' uncertainty and one row's scatter."""
        row = PeakRow(setting=setting, gamma=gamma, sigma=sigma, speedup=1.0)
        log_peak, slope = _log_ratio(self.offsets, row), _slope(self.offsets, row)
        spread = math.sqrt(float(slope @ self.covariance @ slope) + ROW_SCATTER**2)
        low, value, high = (math.exp(log_peak + k * NORMAL_95 * spread) for k in (-1, 0, 1))
        return Interval(value=value, low=low, high=high)


def calibrate(rows: Sequence[PeakRow]) -> Calibration:
    """The figures that explain the rows best: least squares on log speedups, with the priors.

    Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("calibrate needs at least 1 row, got 0; give measured peak speedups")

    def residuals(offsets: _Floats) -> _Floats:
        misfits = [_log_ratio(offsets, row) / ROW_SCATTER for row in rows]
        return np.concatenate([misfits, offsets])

    solved = min((least_squares(residuals, start) for start in _starts()), key=lambda s: s.cost)
    return Calibration(offsets=solved.x, covariance=np.linalg.inv(solved.jac.T @ solved.jac))


def _starts() -> list[_Floats]:
    """The priors' centres, and with less and more compute: where the knee lies splits the minima."""
    knee = np.array([name == "compute_efficiency" for name in NAMES], dtype=np.float64)
    return [shift * knee for shift in (0.0, -1.5, 1.5)]


def achieved_at(offsets: npt.ArrayLike) -> Achieved:
    """The figures at so many prior spreads from their centres, in the order of NAMES."""
    moved = dict(zip(NAMES, map(float, np.asarray(offsets, dtype=np.float64)), strict=True))
    logit = {name: _from_logit(c, s * moved[name]) for name, (c, s) in _LOGIT_PRIORS.items()}
    log = {name: c * math.exp(s * moved[name]) for name, (c, s) in _LOG_PRIORS.items()}
    return Achieved(**logit, **log)


def _from_logit(centre: float, shift: float) -> float:
    odds = centre / (1.0 - centre) * math.exp(shift)
    return odds / (1.0 + odds)


def _log_ratio(offsets: _Floats, row: PeakRow) -> float:
    """Logarithm of predicted over measured."""
    peak = peak_speedup(row.setting, achieved_at(offsets), gamma=row.gamma, sigma=row.sigma)
    return math.log(peak.speedup / row.speedup)


def _slope(offsets: _Floats, row: PeakRow, width: float = 1e-3) -> _Floats:
    """Change of the log peak with each offset, by central differences."""
    steps = np.eye(len(NAMES)) * width
    rises = [_log_ratio(offsets + step, row) - _log_ratio(offsets - step, row) for step in steps]
    return np.array(rises) / (2.0 * width)
