"""How a forward's time grows with its tokens: slowly while memory-bound, then on a line."""

from __future__ import annotations

import math
from typing import Any, overload

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]
_Numbers = npt.NDArray[np.integer[Any] | np.floating[Any]]
_LOG_LARGEST = math.log(np.finfo(np.float64).max)  # 709.78: exp of more is infinite


def ridge_point(peak_flops: float, peak_bytes_per_s: float) -> float:
    """Operations a device can do while it loads one byte: FLOP/s over bytes/s, in FLOP per byte.

    A weight of b bytes is used in 2 operations a token, so a matrix product of t tokens has an
    intensity of 2 t / b: this number equals a token count for 16-bit weights only.

    Raises ValueError unless both rates are positive and finite.
    """
    _check_positive("peak_flops", peak_flops, "see the device's data sheet")
    _check_positive("peak_bytes_per_s", peak_bytes_per_s, "see the device's data sheet")
    return peak_flops / peak_bytes_per_s


@overload
def growth(tokens: float, *, s: float, ridge: float, lam: float) -> float: ...
@overload
def growth(tokens: _Numbers, *, s: float, ridge: float, lam: float) -> _Floats: ...
def growth(tokens: float | _Numbers, *, s: float, ridge: float, lam: float) -> float | _Floats:
    """MoESD's G(t): s^t up to the knee at lam * ridge tokens, then its tangent there.

    Dimensionless, G(0) = 1, and the result has the shape of `tokens` (t >= 0, or tokens per
    expert). Source: MoESD (arXiv 2505.19645), the roofline growth function.

    Raises ValueError as `log_growth` does, or if the result itself is too large for a double:
    s^(lam * ridge) may be, as long as the tokens stay below it. `log_growth` always fits.
    """
    exponent = np.asarray(log_growth(tokens, s=s, ridge=ridge, lam=lam))
    if np.any(exponent > _LOG_LARGEST):
        raise ValueError(
            f"growth must stay below exp({_LOG_LARGEST:.2f}), got exp({exponent.max():.2f})"
            f" at s {s} and knee {lam * ridge}; use log_growth, or s closer to 1"
        )
    return _shaped(np.exp(exponent))


@overload
def log_growth(tokens: float, *, s: float, ridge: float, lam: float) -> float: ...
@overload
def log_growth(tokens: _Numbers, *, s: float, ridge: float, lam: float) -> _Floats: ...
def log_growth(tokens: float | _Numbers, *, s: float, ridge: float, lam: float) -> float | _Floats:
    """The natural logarithm of `growth`, finite where growth overflows.

    A fit that scales by a difference, exp(log_growth(t) - log_growth(t_max)), never overflows.

    Raises ValueError if tokens are negative, s is below 1, or ridge or lam is not positive.
    """
    _check_positive("ridge", ridge, "use ridge_point of the device")
    _check_positive("lam", lam, "the paper fits it in [0.2, 1]")
    if not 1.0 <= s < math.inf:
        raise ValueError(f"s must be at least 1 and finite, got {s}; the paper fits it in [1, 2]")
    counts = np.asarray(tokens, dtype=np.float64)
    if not np.all(counts >= 0.0):
        raise ValueError(f"tokens must be >= 0, got {counts.min()}; count tokens of one forward")
    log_s, knee = math.log(s), lam * ridge
    past_knee = np.maximum(counts - knee, 0.0)
    return _shaped(log_s * np.minimum(counts, knee) + np.log1p(log_s * past_knee))


def _shaped(values: _Floats) -> float | _Floats:
    """A float when the caller gave one number, else the array."""
    return values if values.ndim else float(values)


def _check_positive(name: str, value: float, way_out: str) -> None:
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}; {way_out}")
