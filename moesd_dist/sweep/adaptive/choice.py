"""Which points of a pool to measure next, so that the fit or the recommendation gains most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr  # type: ignore[import-untyped, unused-ignore]

from moesd_dist.sweep.adaptive.pool import Pool
from moesd_dist.theory.acceptance_profile import AcceptanceProfile, pooled
from moesd_dist.theory.choices.design import Objective
from moesd_dist.theory.choices.step_design import acceptance_part, step_parts
from moesd_dist.theory.steps.data import StepData
from moesd_dist.theory.steps.fit import StepFit
from moesd_dist.theory.steps.model import Grid

_Floats = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]
_Bools = npt.NDArray[np.bool_]

_TIE = 1e-6  # weight of the fit where no recommendation is in doubt


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """What of a pool has been measured, and the fit to it."""

    places: _Indices  # in the pool, [measured]
    data: StepData  # of those points, in that order
    fit: StepFit


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """What is left open, relative to the speedups, at 95 %."""

    interval: float  # half width of a predicted speedup's interval, mean over the pool
    gain: float  # most that another gamma may still gain over the recommended one, over batch sizes

    def of(self, objective: Objective) -> float:
        return self.interval if objective is Objective.fit else self.gain


class Outlook:
    """Predicted log speedups of a pool, and what each of its points would teach about them."""

    def __init__(self, pool: Pool, known: Known) -> None:
        self._pool, self._quantile = pool, known.fit.parts["target"].quantile()
        profiles = acceptance_by_setting(pool, known)
        grid = Grid(
            batch_size=pool.batch_size,
            gamma=pool.gamma,
            top_k=pool.top_k,
            context_tokens=known.data.context_tokens.mean(),
        )
        accepted = acceptance_part(profiles, pool.setting, pool.gamma, pool.tokens)
        self._parts = [*step_parts(known.fit, grid, pool.group, known.places), accepted]
        pairs = zip(pool.setting, pool.gamma.astype(int), strict=True)
        self.sigma = np.array([profiles[place].sigma(gamma) for place, gamma in pairs])
        self.log_speedup = np.log(known.fit.model.round_seconds(grid).speedup(self.sigma))

    @property
    def variances(self) -> _Floats:
        return _total([part.variances for part in self._parts])

    def doubt(self) -> Doubt:
        rivals, margin = contrasts(self.log_speedup, self._pool.group)
        spread = np.sqrt(_total([part.asked(rivals).variances for part in self._parts]))
        gain = float((self._quantile * spread - margin).max())
        half = np.expm1(self._quantile * np.sqrt(self.variances))
        return Doubt(interval=float(half.mean()), gain=float(np.expm1(max(0.0, gain))))

    def choose(self, objective: Objective, candidates: _Bools, count: int) -> list[int]:
        """The best candidates one after another, each knowing what the earlier ones will tell.

        Of equally good ones the first; fewer than `count` if the candidates run out.
        """
        rivals, margin = contrasts(self.log_speedup, self._pool.group)
        parts, left, chosen = self._parts, candidates.copy(), list[int]()
        while left.any() and len(chosen) < count:
            loss = _total([part.after_each() for part in parts]).mean(axis=1)
            if objective is Objective.recommendation:
                after = _total([part.asked(rivals).after_each() for part in parts])
                loss = _TIE * loss + expected_regret(after, margin).sum(axis=1)
            place = int(np.argmin(np.where(left, loss, np.inf)))
            chosen.append(place)
            left[place] = False
            group = self._pool.group == self._pool.group[place]
            parts = [part.told(place, group) for part in parts]
        return chosen


def contrasts(log_speedup: _Floats, group: _Indices) -> tuple[_Floats, _Floats]:
    """The best of each group against each rival, and by how much it leads.

    Combinations of log speedups [rivals, points] and their values [rivals], 0 or more. Plain
    decoding, whose log speedup is 0 for certain, is one of the rivals, or the best.
    """
    rows, identity = list[_Floats](), np.eye(len(group))
    for label in np.unique(group):
        members = np.flatnonzero(group == label)
        best = members[np.argmax(log_speedup[members])]
        lead = identity[best] if log_speedup[best] > 0.0 else np.zeros(len(group))
        others = [np.zeros(len(group)), *(identity[place] for place in members)]
        rows += [lead - other for other in others if np.any(lead != other)]
    found = np.stack(rows)
    return found, np.maximum(0.0, found @ log_speedup)


def expected_regret(variance: _Floats, margin: _Floats) -> _Floats:
    """What choosing the leader costs if a rival is really better: E[max(0, rival - leader)].

    For a normal difference of mean -margin; arrays broadcast.
    """
    spread = np.sqrt(np.maximum(variance, 1e-18))
    lead = margin / spread
    return np.asarray(spread * np.exp(-0.5 * lead**2) / np.sqrt(2.0 * np.pi) - margin * ndtr(-lead))


def acceptance_by_setting(pool: Pool, known: Known) -> list[AcceptanceProfile]:
    """Pooled over the measured points of each setting; over all of them where it has none."""
    profiles = [
        AcceptanceProfile.from_counts([int(n) for n in counts[: int(gamma)]], int(rounds))
        for counts, gamma, rounds in zip(
            known.data.accepted, known.data.gamma, known.data.sequence_rounds, strict=True
        )
    ]
    places = pool.setting[known.places]
    own = [
        [p for p, s in zip(profiles, places, strict=True) if s == i] for i in range(pool.settings)
    ]
    return [pooled(members or profiles) for members in own]


def _total(values: list[_Floats]) -> _Floats:
    return np.asarray(np.sum(values, axis=0))
