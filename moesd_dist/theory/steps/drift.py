"""What values measured one after another share: the machine's speed of that minute."""

# A random effect: the residuals of a group have covariance scatter^2 (I + ratio 11'). Its inverse
# root takes a part of the group's mean away: none at ratio 0, all of it as the ratio grows.

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped, unused-ignore]

_Floats = npt.NDArray[np.float64]

_RANGE = (math.log(1e-4), math.log(1e4))  # of the ratio
_NONE = 1e-3  # a ratio below it is no drift
_PRIOR_SPREAD = 2.0  # of ln ratio around 0: groups of one value cannot tell drift from scatter


class Groups:
    """Which values belong together; labels [values]."""

    def __init__(self, labels: npt.ArrayLike) -> None:
        _, self._of, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
        self.sizes = counts.astype(np.float64)

    def whiten(self, rows: _Floats, ratio: float) -> _Floats:
        """Rows [values, ...] whose groups covary as above, made independent with equal variance."""
        flat = rows.reshape(len(rows), -1)
        sums = np.stack([np.bincount(self._of, column) for column in flat.T], axis=1)
        means = sums / self.sizes[:, None]
        kept = 1.0 - 1.0 / np.sqrt(1.0 + self.sizes * ratio)
        return (flat - (kept[:, None] * means)[self._of]).reshape(rows.shape)


def drift_share(groups: Groups, residuals: _Floats) -> float:
    """Variance of the drift over that of the scatter: the likeliest for these residuals and a weak prior."""

    def cost(log_ratio: float) -> float:
        ratio = math.exp(log_ratio)
        left = groups.whiten(residuals, ratio)
        size = len(residuals) * math.log(max(float(left @ left), 1e-300))
        prior = (log_ratio / _PRIOR_SPREAD) ** 2
        return float(size + np.log1p(groups.sizes * ratio).sum() + prior)

    found = minimize_scalar(cost, bounds=_RANGE, method="bounded", options={"xatol": 1e-3})
    ratio = math.exp(float(found.x))
    return ratio if ratio > _NONE else 0.0
