"""A forward taken apart: which cause eats how much of target efficiency, and of a speedup."""

# Causes add up in seconds, so what each costs is a difference over one denominator: no order of taking
# them away, and no remainder. 1 / target efficiency is the verification in units of the decoding
# forward; sigma (gamma + 1) / speedup is the round in units of a step of plain decoding.

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.expert_parallel.round_parts import EpRoundSeconds, EpSeconds

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EfficiencyParts:
    """What verification takes longer than decoding, by cause, in decoding forwards; arrays.

    A part of 0.2 means that this cause adds a fifth of a decoding forward. Parts may be negative:
    a link that costs the same for more tokens adds 0, an imbalance that more tokens even out takes
    some away.
    """

    experts: _Floats
    imbalance: _Floats
    communication: _Floats
    packing: _Floats
    rest: _Floats

    @property
    def growth(self) -> _Floats:
        """Of all causes: 1 / target efficiency - 1."""
        at_experts = self.experts + self.imbalance
        return at_experts + self.communication + self.packing + self.rest

    @property
    def target_efficiency(self) -> _Floats:
        return 1.0 / (1.0 + self.growth)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoundParts:
    """What a round takes longer than a step of plain decoding, by cause, in such steps; arrays."""

    verification: EfficiencyParts  # in steps here, so that it adds to the others
    drafting: _Floats
    rejection: _Floats  # beyond the sampling that plain decoding pays as well

    @property
    def round_steps(self) -> _Floats:
        """A round over a step: what sigma (gamma + 1) has to exceed for a speedup above 1."""
        return 1.0 + self.verification.growth + self.drafting + self.rejection

    def speedup(self, sigma: npt.ArrayLike, gamma: npt.ArrayLike) -> _Floats:
        length = np.asarray(sigma, np.float64) * (np.asarray(gamma, np.float64) + 1.0)
        return np.asarray(length / self.round_steps)


def efficiency_parts(decode: EpSeconds, verify: EpSeconds) -> EfficiencyParts:
    """1 / target efficiency = 1 + sum over causes of (verify - decode) / T(decode).

    Raises ValueError if a decoding forward takes no time.
    """
    return _growth(decode, verify, decode.total_s)


def round_parts(times: EpRoundSeconds) -> RoundParts:
    """sigma (gamma + 1) / speedup = 1 + what verification, drafts and rejection add, in steps.

    Without the sampling of plain decoding a step is a decoding forward, and the parts are those of
    `efficiency_parts`; `theory.speedup.decompose` multiplies where this adds, to the same speedup.
    """
    step_s = times.step_s
    return RoundParts(
        verification=_growth(times.decode, times.verify, step_s),
        drafting=times.gamma * times.draft_step_s / step_s,
        rejection=(times.reject_s - times.baseline_reject_s) / step_s,
    )


def _growth(decode: EpSeconds, verify: EpSeconds, unit_s: _Floats) -> EfficiencyParts:
    if not np.all(unit_s > 0.0):
        raise ValueError(f"a decoding forward must take time, got {np.min(unit_s)} s; time one")
    grown = {
        f.name.removesuffix("_s"): (getattr(verify, f.name) - getattr(decode, f.name)) / unit_s
        for f in fields(EpSeconds)
    }
    return EfficiencyParts(**grown)
