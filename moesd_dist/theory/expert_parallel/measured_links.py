"""Collectives as a calibration timed them, by size; and the alpha-beta law nearest to such times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls  # type: ignore[import-untyped, unused-ignore]

from moesd_dist.theory.expert_parallel.collectives import COUNT_BYTES, ExchangeCost, Link

_Floats = npt.NDArray[np.float64]

ALL_TO_ALL, ALL_GATHER, REDUCE_SCATTER = "all_to_all", "all_gather", "reduce_scatter"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """Seconds by bytes, both [sizes]: linear in between, flat below, the last slope above.

    Raises ValueError unless bytes grow, there are two sizes and all seconds are positive.
    """

    bytes_out: npt.ArrayLike
    seconds: npt.ArrayLike

    def __post_init__(self) -> None:
        sizes, spent = (np.asarray(v, np.float64) for v in (self.bytes_out, self.seconds))
        if len(sizes) < 2 or sizes.shape != spent.shape or np.any(np.diff(sizes) <= 0.0):
            raise ValueError(
                f"a curve needs 2 or more sizes that grow, with seconds for each; got {sizes.size} "
                f"sizes and {spent.size} seconds"
            )
        if not np.all(spent > 0.0):
            raise ValueError(f"seconds must be positive, got {spent.min()}; time the collective")
        object.__setattr__(self, "bytes_out", sizes)
        object.__setattr__(self, "seconds", spent)

    def at(self, bytes_out: npt.ArrayLike) -> _Floats:
        asked = np.asarray(bytes_out, np.float64)
        sizes, spent = np.asarray(self.bytes_out), np.asarray(self.seconds)
        # Noise may let the last step fall; more bytes never take less time than fewer.
        slope = max(0.0, float((spent[-1] - spent[-2]) / (sizes[-1] - sizes[-2])))
        beyond = np.maximum(asked - sizes[-1], 0.0) * slope
        return np.asarray(np.interp(asked, sizes, spent) + beyond)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """An `ExchangeCost` of curves for (collective, ranks), all of ranks on as many nodes.

    Raises ValueError when asked for ranks or a collective that nobody timed.
    """

    curves: Mapping[tuple[str, int], Curve]

    def all_to_all_s(self, bytes_out: npt.ArrayLike, ranks: npt.ArrayLike) -> _Floats:
        return self._seconds(ALL_TO_ALL, bytes_out, ranks)

    def all_gather_s(self, bytes_out: npt.ArrayLike, ranks: npt.ArrayLike) -> _Floats:
        return self._seconds(ALL_GATHER, bytes_out, ranks)

    def reduce_scatter_s(self, bytes_out: npt.ArrayLike, ranks: npt.ArrayLike) -> _Floats:
        return self._seconds(REDUCE_SCATTER, bytes_out, ranks)

    def counts_s(self, ranks: npt.ArrayLike) -> _Floats:
        size = np.asarray(ranks, np.float64)
        return self.all_to_all_s(COUNT_BYTES * (size - 1.0), size)

    def _seconds(self, collective: str, bytes_out: npt.ArrayLike, ranks: npt.ArrayLike) -> _Floats:
        asked, size = np.broadcast_arrays(
            np.asarray(bytes_out, np.float64), np.asarray(ranks, np.float64)
        )
        found = np.zeros(asked.shape)
        for count in np.unique(size[size > 1.0]):
            here = size == count
            found[here] = self._curve(collective, int(count)).at(asked[here])
        return found

    def _curve(self, collective: str, ranks: int) -> Curve:
        try:
            return self.curves[collective, ranks]
        except KeyError:
            known = ", ".join(f"{name} of {count}" for name, count in sorted(self.curves))
            raise ValueError(
                f"{collective} over {ranks} ranks was not timed, only {known}; calibrate that "
                "layout, or predict it with Links"
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dearer:
    """Collectives that take `factor` times as long as those of `cost`."""

    cost: ExchangeCost
    factor: float

    def all_to_all_s(self, bytes_out: npt.ArrayLike, ranks: npt.ArrayLike) -> _Floats:
        return self.factor * self.cost.all_to_all_s(bytes_out, ranks)

    def all_gather_s(self, bytes_out: npt.ArrayLike, ranks: npt.ArrayLike) -> _Floats:
        return self.factor * self.cost.all_gather_s(bytes_out, ranks)

    def reduce_scatter_s(self, bytes_out: npt.ArrayLike, ranks: npt.ArrayLike) -> _Floats:
        return self.factor * self.cost.reduce_scatter_s(bytes_out, ranks)

    def counts_s(self, ranks: npt.ArrayLike) -> _Floats:
        return self.factor * self.cost.counts_s(ranks)


def fit_alpha_beta(bytes_out: npt.ArrayLike, seconds: npt.ArrayLike) -> Link:
    """The latency and rate with the least squared relative error, [sizes]; neither is negative.

    Raises ValueError for fewer than two different sizes or a time that is not positive.
    """
    sizes, spent = (np.asarray(v, np.float64).ravel() for v in (bytes_out, seconds))
    if np.unique(sizes).size < 2 or sizes.shape != spent.shape or not np.all(spent > 0.0):
        raise ValueError(
            f"latency and rate need times of 2 different sizes, all positive; got {sizes.size} "
            f"sizes and {spent.size} seconds"
        )
    scale = sizes.max()  # both unknowns of one order: seconds of no bytes, and of the most
    columns = np.stack([1.0 / spent, sizes / scale / spent], axis=1)
    (latency_s, largest_s), _ = nnls(columns, np.ones_like(spent))
    rate = scale / largest_s if largest_s > 0.0 else np.inf
    return Link(latency_s=float(latency_s), bytes_per_s=float(rate))
