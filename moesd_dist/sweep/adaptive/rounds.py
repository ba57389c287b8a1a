"""An adaptive sweep as a plan: fit what is measured, choose the next points, stop when it is enough."""

# The choice depends on nothing but what has been measured, whoever measured it: so a sweep that was
# killed goes on as if it had not been.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesd_dist.records import Measurement, Outcome, SweepPoint
from moesd_dist.sweep.adaptive.choice import Doubt, Known, Outlook
from moesd_dist.sweep.adaptive.observations import step_data
from moesd_dist.sweep.adaptive.pool import Pool, fill, pool_of
from moesd_dist.sweep.driver import Round
from moesd_dist.theory.choices.design import Objective
from moesd_dist.theory.counts import ModelCounts
from moesd_dist.theory.steps.fit import fit_steps
from moesd_dist.theory.steps.priors import Peaks

_Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveRule:
    """How points are chosen and when to stop; counts are of SD points, whose baselines come along."""

    objective: Objective
    start: int  # measured before the first fit
    per_round: int
    budget: int
    target_interval: float  # stop when the doubt is no larger; 0 spends the budget


class AdaptivePlan:
    """Raises ValueError as `pool_of` does, or if the start cannot hold a point of every setting."""

    def __init__(
        self,
        points: Sequence[SweepPoint],
        rule: AdaptiveRule,
        *,
        target: ModelCounts,
        draft: ModelCounts,
        peaks: Peaks | None = None,
    ) -> None:
        self._pool = pool_of(points, own_top_k=target.top_k)
        self._rule, self._target, self._draft, self._peaks = rule, target, draft, peaks
        if self._pool.settings > rule.start:
            raise ValueError(
                f"sweep.adaptive.start {rule.start} is below the {self._pool.settings} combinations "
                "of top_k, temperature and workload, each of which has its own acceptance; raise it"
            )

    def next_round(self, outcomes: Sequence[Outcome]) -> Round:
        ids = {point.point_id: place for place, point in enumerate(self._pool.points)}
        found = {ids[o.point.point_id]: o for o in outcomes if o.point.point_id in ids}
        measured = {p: o for p, o in sorted(found.items()) if isinstance(o, Measurement)}
        candidates = _candidates(self._pool, outcomes)
        known = self._fitted(measured)
        if isinstance(known, str):
            return self._filling(measured, candidates, known)
        return self._chosen(Outlook(self._pool, known), len(measured), candidates)

    def _fitted(self, measured: dict[int, Measurement]) -> Known | str:
        """The fit, or why there is none yet."""
        if len(measured) < self._rule.start:
            return "to begin with"
        data = step_data(list(measured.values()))
        try:
            fit = fit_steps(data, target=self._target, draft=self._draft, peaks=self._peaks)
        except ValueError as error:  # such as a single batch size, where the others do not fit
            return str(error)
        return Known(places=np.array(list(measured), dtype=np.intp), data=data, fit=fit)

    def _filling(self, measured: dict[int, Measurement], candidates: _Bools, why: str) -> Round:
        rule, count = self._rule, len(measured)
        if ending := self._ending(count, candidates, None):
            return Round(points=(), why=f"{self._progress(count)}: {ending}; no fit: {why}")
        known = np.isin(np.arange(len(self._pool)), list(measured))
        wanted = rule.start - count if count < rule.start else rule.per_round
        chosen = fill(self._pool, known, candidates, min(wanted, rule.budget - count))
        return self._round(chosen, count, why)

    def _chosen(self, outlook: Outlook, count: int, candidates: _Bools) -> Round:
        rule, doubt = self._rule, outlook.doubt()
        if ending := self._ending(count, candidates, doubt):
            return Round(points=(), why=f"{self._progress(count)}: {ending}; {_open(doubt)}")
        wanted = min(rule.per_round, rule.budget - count)
        return self._round(outlook.choose(rule.objective, candidates, wanted), count, _open(doubt))

    def _ending(self, count: int, candidates: _Bools, doubt: Doubt | None) -> str:
        """Why to stop; empty to go on."""
        rule = self._rule
        if doubt is not None and doubt.of(rule.objective) <= rule.target_interval:
            return "the target is reached"
        if count >= rule.budget:
            return "the budget is spent"
        return "" if candidates.any() else "nothing is left to measure"

    def _progress(self, count: int) -> str:
        return f"measured {count} of {len(self._pool)} SD points"

    def _round(self, chosen: Sequence[int], count: int, why: str) -> Round:
        """The chosen points, each behind its baseline."""
        later = count - self._rule.start
        number = 1 if later < 0 else 2 + later // self._rule.per_round
        points = [self._pool.points[place] for place in chosen]
        both = dict.fromkeys(member for p in points for member in (p.baseline, p))
        return Round(points=tuple(both), why=f"round {number} ({why})")


def _candidates(pool: Pool, outcomes: Sequence[Outcome]) -> _Bools:
    """What has no outcome yet, and a baseline that did not fail."""
    tried = {o.point.point_id for o in outcomes}
    broken = {o.point.point_id for o in outcomes if not isinstance(o, Measurement)}
    return np.array(
        [p.point_id not in tried and p.baseline.point_id not in broken for p in pool.points]
    )


def _open(doubt: Doubt) -> str:
    return (
        f"mean interval of a prediction ±{doubt.interval:.1%}, "
        f"another gamma may gain up to {doubt.gain:.1%}"
    )
