"""What measurements say of speedups and acceptance, with errors that repeats really showed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from statistics import fmean, median

import numpy as np
import numpy.typing as npt
from scipy import stats

from moesd_dist.records import Measurement
from moesd_dist.sweep.statistics import paired_interval, speedup
from moesd_dist.theory.acceptance_profile import AcceptanceProfile
from moesd_dist.theory.conditioning import Observed
from moesd_dist.workloads.acceptance_points import profile_of

_Floats = npt.NDArray[np.float64]

_NORMAL = float(stats.norm.ppf(0.975))
_UNKNOWN_SPREAD = 0.05  # of a speedup of one repeat, where no other was repeated either
_MOST_ALIKE = 0.95


def observed(points: Sequence[Measurement]) -> Observed:
    """Speedups with the noise of their repeats.

    Points of one batch size share baseline and prompts, repeat by repeat, so their errors go
    together: one correlation, pooled over all batch sizes, stands for all of them.
    """
    spreads, alike = _spreads(points), correlation(points)
    noise = np.diag(spreads**2)
    for i, j in combinations(range(len(points)), 2):
        if points[i].baseline == points[j].baseline:
            noise[i, j] = noise[j, i] = alike * spreads[i] * spreads[j]
    return Observed(
        batch_size=np.array([float(m.point.batch_size) for m in points]),
        gamma=np.array([float(m.point.gamma) for m in points]),
        log_speedup=np.array([math.log(speedup(m)) for m in points]),
        noise=noise,
    )


def correlation(points: Sequence[Measurement]) -> float:
    """Of the log speedups of two gammas over repeats that share a baseline; 0 if there are none."""
    together = apart = 0.0
    for one, other in combinations(points, 2):
        if one.baseline == other.baseline and len(one.repeats) > 1:
            both = np.cov(np.log([one.paired_speedups(), other.paired_speedups()]))
            together += float(both[0, 1])
            apart += math.sqrt(both[0, 0] * both[1, 1])
    return float(np.clip(together / apart, 0.0, _MOST_ALIKE)) if apart else 0.0


def pooled_acceptance(points: Sequence[Measurement]) -> AcceptanceProfile:
    """All points pooled, with as many rounds as the spread between repeats lets them count for.

    Rounds of one text go together, and all gammas read the same texts; each repeat reads others. So
    what the pooled sigma varies by from repeat to repeat, over the binomial law's variance, is
    how many rounds there are to one independent one.
    """
    profile = profile_of(points)
    counted = [max(1, int(rounds / overdispersion(points))) for rounds in profile.tried]
    return replace(profile, tried=tuple(counted))


def overdispersion(points: Sequence[Measurement]) -> float:
    """At least 1; 1 if nothing was repeated."""
    repeats = min(len(m.repeats) for m in points)
    if repeats < 2:
        return 1.0
    whole = profile_of(points)
    single = [profile_of([_only(m, i) for m in points]) for i in range(repeats)]
    ratios = []
    for gamma in sorted({m.point.gamma for m in points}):
        variance = float(np.var([p.sigma(gamma) for p in single], ddof=1)) / repeats
        if expected := whole.sigma_variance(gamma):
            ratios.append(variance / expected)
    return max(1.0, fmean(ratios)) if ratios else 1.0


def _only(measurement: Measurement, repeat: int) -> Measurement:
    return replace(measurement, repeats=(measurement.repeats[repeat],))


def _spreads(points: Sequence[Measurement]) -> _Floats:
    """Standard deviations of log speedups, wide enough that normal intervals are Student's."""
    known = [paired_interval(m.paired_speedups()) for m in points]
    found = [math.log(i.high / i.low) / 2.0 / _NORMAL if i else 0.0 for i in known]
    usual = median(s for s in found if s) if any(found) else _UNKNOWN_SPREAD
    return np.array([s or usual for s in found])
