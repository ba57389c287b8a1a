"""A time that grows as the roofline does, also where the growth alone exceeds a double."""

from __future__ import annotations

import math

import numpy as np

from moesd_dist.theory.moesd.points import Floats
from moesd_dist.theory.roofline import log_growth

_LOG_LARGEST = math.log(np.finfo(np.float64).max)


def scaled_growth(scale: float, tokens: Floats, *, s: float, ridge: float, lam: float) -> Floats:
    """scale * G(tokens) by a sum of logarithms; in the unit of `scale` and the shape of `tokens`.

    A small scale times a G too large for a double fits, and 0 times anything is 0.

    Raises ValueError as `roofline.log_growth` does, if scale is negative, or if the product
    exceeds a double.
    """
    if not scale >= 0.0:
        raise ValueError(f"a scale is at least 0, got {scale}; use seconds")
    growth = np.asarray(log_growth(tokens, s=s, ridge=ridge, lam=lam))
    if scale == 0.0:
        return np.zeros_like(growth)
    exponent = math.log(scale) + growth
    if exponent.max() > _LOG_LARGEST:
        raise ValueError(
            f"a term must stay below exp({_LOG_LARGEST:.2f}), got exp({exponent.max():.2f})"
            f" at s {s}; use s closer to 1, or a smaller k"
        )
    return np.exp(exponent)
