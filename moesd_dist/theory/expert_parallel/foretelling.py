"""What points over several ranks will be, from steps of one rank, with the interval of one measurement."""

# Variances of logarithms add up, by the delta method: of the fitted rates, of the links, of acceptance
# as it was counted, of the text that popularity was counted in. One measurement there adds its own:
# the scatter of its steps around any fit, its own counting, its own text.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.acceptance_profile import AcceptanceProfile
from moesd_dist.theory.expert_parallel.collectives import ExchangeCost
from moesd_dist.theory.expert_parallel.dispatch import Dispatch
from moesd_dist.theory.expert_parallel.measured_links import Dearer
from moesd_dist.theory.expert_parallel.popular_step import PopularEpModel, Table
from moesd_dist.theory.expert_parallel.round_parts import EpGrid, EpRoundSeconds
from moesd_dist.theory.steps.fit import StepFit

_Floats = npt.NDArray[np.float64]
_Values = dict[str, _Floats]  # by the name of a metric, [points]; nan where a point has none

_PARTS = ("target", "draft", "reject")  # of a fit; tables stand for its routing
_STEP = 1e-3  # of a prior's spread, and of a logarithm


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Basis:
    """Points of one layout, and all that is known before they are measured.

    `memory` and `compute` are the shares of a rank alone that each of these ranks has. The first
    table is of the whole text, the others of as much text drawn again.
    """

    fit: StepFit
    acceptance: AcceptanceProfile
    rounds: int  # rounds times sequences that one measurement counts acceptance over
    grid: EpGrid
    cost: ExchangeCost
    cost_spread: float  # standard deviation of the logarithm of a collective's seconds
    memory: float
    compute: float
    dispatch: Dispatch
    tables: Sequence[Table]


class Foretelling:
    """Values at the points of a basis, and 95 % of one measurement there."""

    def __init__(self, basis: Basis) -> None:
        self._basis = basis
        self._gamma = basis.grid.arrays()[1]
        self._centre = {name: basis.fit.parts[name].offsets for name in _PARTS}

    @cached_property
    def values(self) -> _Values:
        return self._values()

    @property
    def low(self) -> _Values:
        return {n: v * np.exp(-self._quantile * self.spread[n]) for n, v in self.values.items()}

    @property
    def high(self) -> _Values:
        return {n: v * np.exp(self._quantile * self.spread[n]) for n, v in self.values.items()}

    @cached_property
    def spread(self) -> _Values:
        """Standard deviations of the logarithm of one measurement around the value."""
        found = {name: np.zeros_like(self._gamma) for name in self.values}
        for part in (self._of_rates(), self._of_links(), self._of_text(), self._of_measuring()):
            for name, variance in part.items():
                found[name] = found[name] + variance
        return {name: np.sqrt(variance) for name, variance in found.items()}

    @property
    def _quantile(self) -> float:
        return self._basis.fit.parts["target"].quantile()

    def _times(
        self, part: str = "", offsets: _Floats | None = None, *, dearer: float = 0.0, text: int = 0
    ) -> EpRoundSeconds:
        """`offsets` of one part of the fit in place of its best ones; `dearer` is a logarithm."""
        basis = self._basis
        moved = {} if offsets is None else {part: offsets}
        routing = {n: p.offsets for n, p in basis.fit.parts.items() if n not in _PARTS}
        step = basis.fit.model_at(self._centre | routing | moved)
        # Cores that are shared slow down everything; what memory loses beyond that, reading alone.
        return PopularEpModel(
            step=step.moved(memory=min(1.0, basis.memory / basis.compute), compute=1.0),
            cost=Dearer(cost=basis.cost, factor=math.exp(dearer)),
            dispatch=basis.dispatch,
            slowdown=lambda ranks: np.full_like(ranks, 1.0 / basis.compute),
            table=basis.tables[text],
        ).round_seconds(basis.grid)

    def _values(
        self, part: str = "", offsets: _Floats | None = None, *, dearer: float = 0.0, text: int = 0
    ) -> _Values:
        times = self._times(part, offsets, dearer=dearer, text=text)
        work = times.verify_work.experts  # at gamma 0 verification is decoding
        drafted = np.where(self._gamma > 0.0, 1.0, np.nan)
        return {
            "rank_activated_experts": work.activated_mean,
            "max_rank_activated_experts": work.activated_max,
            "load_imbalance": work.load_imbalance,
            "communication_s": times.verify.communication_s,
            "target_efficiency": drafted * times.target_efficiency,
            "speedup": drafted * times.speedup(self._sigma),
        }

    @cached_property
    def _sigma(self) -> _Floats:
        return np.array([self._basis.acceptance.sigma(int(g)) for g in self._gamma])

    def _logs(self, part: str = "", offsets: _Floats | None = None, dearer: float = 0.0) -> _Values:
        found = self._values(part, offsets, dearer=dearer)
        return {name: np.log(values) for name, values in found.items()}

    def _of_rates(self) -> _Values:
        """By the covariance of each part of the fit."""
        total = {name: np.zeros_like(self._gamma) for name in self.values}
        for part, centre in self._centre.items():
            slopes = [self._slopes(part, centre, step) for step in np.eye(len(centre)) * _STEP]
            covariance = self._basis.fit.parts[part].covariance
            for name in total:
                own = np.stack([slope[name] for slope in slopes], axis=-1)
                total[name] += np.einsum("ni,ij,nj->n", own, covariance, own)
        return total

    def _slopes(self, part: str, centre: _Floats, step: _Floats) -> _Values:
        up, down = self._logs(part, centre + step), self._logs(part, centre - step)
        return {name: (up[name] - down[name]) / (2.0 * _STEP) for name in up}

    def _of_links(self) -> _Values:
        up, down = self._logs(dearer=_STEP), self._logs(dearer=-_STEP)
        spread = self._basis.cost_spread
        return {n: ((up[n] - down[n]) / (2.0 * _STEP) * spread) ** 2 for n in up}

    def _of_text(self) -> _Values:
        """Twice what drawing the text again does: the measurement has a text of its own."""
        again = [self._values(text=text) for text in range(1, len(self._basis.tables))]
        if len(again) < 2:
            return {}
        logs = {name: np.log([values[name] for values in again]) for name in self.values}
        return {name: 2.0 * found.var(axis=0, ddof=1) for name, found in logs.items()}

    def _of_measuring(self) -> _Values:
        """Scatter of a step of each kind by its share of the whole, and counted acceptance."""
        times = self._times()
        scatter = {name: self._basis.fit.parts[name].scatter ** 2 for name in _PARTS}
        decode, verify = times.decode.total_s, times.verify.total_s
        speedup = scatter["target"] * ((decode / times.step_s) ** 2 + (verify / times.round_s) ** 2)
        speedup += scatter["draft"] * (times.gamma * times.draft_step_s / times.round_s) ** 2
        speedup += scatter["reject"] * (times.reject_s / times.round_s) ** 2
        return {
            "target_efficiency": np.full_like(decode, 2.0 * scatter["target"]),
            "speedup": speedup + self._of_acceptance(),
        }

    def _of_acceptance(self) -> _Floats:
        """What counting left open, and what one measurement's own counting adds."""
        profile, rounds = self._basis.acceptance, self._basis.rounds
        found = np.zeros_like(self._gamma)
        for place in np.flatnonzero(self._gamma > 0.0):
            gamma = int(self._gamma[place])
            own = AcceptanceProfile.from_unconditional(profile.unconditional(gamma), rounds=rounds)
            counted = profile.dispersion * own.sigma_variance(gamma)
            found[place] = (profile.sigma_variance(gamma) + counted) / profile.sigma(gamma) ** 2
        return found
