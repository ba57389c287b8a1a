"""What measurements say of speedups, with the noise that their repeats showed; acceptance from a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from statistics import median

import numpy as np
import numpy.typing as npt
from scipy import stats

from moesd_dist.records import Measurement
from moesd_dist.sweep.statistics import paired_interval, speedup
from moesd_dist.theory.acceptance_profile import AcceptanceProfile
from moesd_dist.theory.choices.conditioning import Observed
from moesd_dist.workloads.acceptance_files import read_profile

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


def given_acceptance(path: str) -> tuple[AcceptanceProfile, list[str]]:
    """The profile of a file, and what to say of it."""
    read = read_profile(path)
    notes = [f"Acceptance is that of {path}; measured speedups are corrected for it."]
    if read.synthetic:
        notes.append("That acceptance is synthetic: no draft was verified.")
    return read.profile, notes


def with_given(labels: Sequence[str], path: str) -> tuple[str, ...]:
    """The points' labels, and that of the acceptance file where there is one."""
    synthetic = bool(path) and read_profile(path).synthetic
    return tuple(dict.fromkeys([*labels, *(["SYNTHETIC ACCEPTANCE"] if synthetic else [])]))


def at_acceptance(
    seen: Observed, points: Sequence[Measurement], acceptance: AcceptanceProfile
) -> Observed:
    """The measured rounds with another acceptance: as many seconds, other tokens."""
    own = np.log([m.acceptance_length for m in points])
    given = np.log([acceptance.acceptance_length(m.point.gamma) for m in points])
    return replace(seen, log_speedup=seen.log_speedup - own + given)


def beyond(acceptance: AcceptanceProfile, gammas: Sequence[int]) -> list[str]:
    """A note where positions have no measured acceptance."""
    most = max(gammas)
    if not (unknown := acceptance.extrapolated(most)):
        return []
    return [f"Acceptance of the last {unknown} of {most} positions was not measured: the last rate is repeated."]  # fmt: skip


def outside(sizes: Sequence[int], measured: npt.ArrayLike) -> list[str]:
    """A note where batch sizes lie beyond the measured ones."""
    low, high = int(np.min(measured)), int(np.max(measured))
    if low <= min(sizes) and max(sizes) <= high:
        return []
    return [f"Outside B={low}..{high} nothing was measured: the model extrapolates."]


def _spreads(points: Sequence[Measurement]) -> _Floats:
    """Standard deviations of log speedups, wide enough that normal intervals are Student's."""
    known = [paired_interval(m.paired_speedups()) for m in points]
    found = [math.log(i.high / i.low) / 2.0 / _NORMAL if i else 0.0 for i in known]
    usual = median(s for s in found if s) if any(found) else _UNKNOWN_SPREAD
    return np.array([s or usual for s in found])
