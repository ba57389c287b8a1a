"""What a calibration says of layouts: seconds of their collectives, and what ranks leave each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression  # type: ignore[import-untyped, unused-ignore]

from moesd_dist.records import LayoutSpec
from moesd_dist.records.calibration import Calibration, CollectiveTimes, RankRates
from moesd_dist.theory.expert_parallel.collectives import ExchangeCost
from moesd_dist.theory.expert_parallel.dispatch import Dispatch
from moesd_dist.theory.expert_parallel.measured_links import Curve, Measured
from moesd_dist.theory.expert_parallel.ranks_fit import SharedTerms

_QUARTILES = 1.349  # standard deviations of a normal law between them


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibrated(Measured):
    """With what the counts took that come before the rows, by ranks."""

    counts: Mapping[int, float]

    def counts_s(self, ranks: npt.ArrayLike) -> npt.NDArray[np.float64]:
        known = [self.counts.get(int(n), 0.0) for n in np.ravel(np.asarray(ranks))]
        return np.array(known).reshape(np.shape(ranks))


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Of one layout. `memory` and `compute` are shares of what a rank alone has, of the worst rank."""

    collectives: tuple[CollectiveTimes, ...]
    counts: tuple[CollectiveTimes, ...]
    memory: float
    compute: float

    @property
    def reading(self) -> float:
        """What memory loses beyond the cores: cores that are shared slow down everything."""
        return min(1.0, self.memory / self.compute)

    @property
    def spread(self) -> float:
        """Standard deviation of the logarithm of a measured mean around the calibrated one.

        The mean over collectives and sizes.
        """
        return fmean(map(_spread, self.collectives))

    @property
    def cost(self) -> ExchangeCost:
        return _cost(self.collectives, self.counts)


def terms_of(calibration: Calibration, layout: LayoutSpec) -> Terms:
    """Raises ValueError where the layout was not calibrated."""
    where = (layout.dp_size, layout.nodes)
    timed = [c for c in calibration.collectives if (c.ranks, c.nodes) == where]
    shared = [r for r in calibration.rates if (r.ranks, r.nodes) == where]
    alone = [r for r in calibration.rates if (r.ranks, r.nodes) == (1, 1)]
    if not timed or not shared or not alone:
        known = sorted({(c.ranks, c.nodes) for c in calibration.collectives})
        raise ValueError(
            f"the calibration of {calibration.measured} knows (ranks, nodes) {known} and "
            f"{'a' if alone else 'no'} rank alone; {where} is asked for: calibrate that layout"
        )
    return Terms(
        collectives=tuple(timed),
        counts=tuple(c for c in calibration.counts if (c.ranks, c.nodes) == where),
        memory=_share(shared, alone, lambda r: r.read_bytes_per_s),
        compute=_share(shared, alone, _speed),
    )


def shared_terms(
    calibration: Calibration, layouts: Sequence[LayoutSpec], dispatch: Dispatch
) -> SharedTerms:
    """What a fit is told of ranks, from layouts of several ranks, each number of them once.

    Ranks compute as much slower as their cores do, and read as much slower as memory is there.
    Raises ValueError where one of them was not calibrated.
    """
    known = {layout.dp_size: terms_of(calibration, layout) for layout in layouts}
    counted = all(terms.counts for terms in known.values())
    slower = {ranks: 1.0 / terms.compute for ranks, terms in known.items()}

    def slowdown(ranks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.array([slower.get(int(n), 1.0) for n in ranks.ravel()]).reshape(ranks.shape)

    return SharedTerms(
        cost=_cost(
            [c for terms in known.values() for c in terms.collectives],
            [c for terms in known.values() for c in terms.counts] if counted else [],
        ),
        dispatch=dispatch,
        memory={n: share for n, terms in known.items() if (share := terms.reading) < 1.0},
        slowdown=slowdown,
    )


def _cost(
    collectives: Sequence[CollectiveTimes], counts: Sequence[CollectiveTimes]
) -> ExchangeCost:
    """Counts that were not timed are taken to be all-to-alls of so few bytes."""
    curves = {(c.collective, c.ranks): _curve(c) for c in collectives}
    if not counts:
        return Measured(curves=curves)
    return Calibrated(curves=curves, counts={c.ranks: means(c)[0] for c in counts})


def _speed(rates: RankRates) -> float:
    """Of the cores: by what stays in their cache where that was timed."""
    return 1.0 / rates.kernel_s if rates.kernel_s else rates.gemm_flops


def _curve(times: CollectiveTimes) -> Curve:
    """Never falling: where a small message was timed slower than a larger one, both share the noise."""
    rising = isotonic_regression(np.log(means(times))).x
    return Curve(bytes_out=times.row_bytes, seconds=np.exp(rising))


def means(times: CollectiveTimes) -> list[float]:
    """Of each size: a forward adds up many calls, the slow ones too.

    Where a calibration kept median and quartiles alone, seconds of calls are taken as log-normal,
    whose mean is median exp(spread^2 / 2): next to nothing on a quiet machine, several times the
    median where ranks wait for a core.
    """
    if times.mean_s:
        return list(times.mean_s)
    spreads = map(_spread_of, times.low_s, times.high_s)
    return [s * math.exp(0.5 * spread**2) for s, spread in zip(times.seconds, spreads, strict=True)]


def _spread(times: CollectiveTimes) -> float:
    """A measurement lasts about as long as a calibration: its mean is taken to be as uncertain.

    Where no error was kept, single calls have to stand for means, which scatter far less.
    """
    if times.error_s:
        return math.sqrt(2.0) * fmean(
            e / m for e, m in zip(times.error_s, means(times), strict=True)
        )
    return fmean(map(_spread_of, times.low_s, times.high_s))


def _spread_of(low_s: float, high_s: float) -> float:
    return math.log(high_s / low_s) / _QUARTILES


def _share(
    shared: Sequence[RankRates], alone: Sequence[RankRates], rate: Callable[[RankRates], float]
) -> float:
    """Of the rank that loses most; against its own host alone where that was measured."""
    own = {r.host: rate(r) for r in alone}
    any_host = fmean(own.values())
    return min(1.0, *(rate(r) / own.get(r.host, any_host) for r in shared))
