"""What limits you: which cause keeps a speedup from gamma + 1, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from moesd_dist.records import Measurement
from moesd_dist.theory.speedup import RoundTimes, decompose
from moesd_dist.theory.steps.model import RoundSeconds

CAUSES = ("acceptance", "target efficiency", "drafting", "rejection")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`factors` by CAUSES: their product times the ideal is the speedup."""

    batch_size: int
    gamma: int
    measured: bool
    factors: Mapping[str, float]

    @property
    def ideal(self) -> float:
        return self.gamma + 1.0

    @property
    def speedup(self) -> float:
        return self.ideal * math.prod(self.factors.values())

    @property
    def shares(self) -> dict[str, float]:
        """Of ln(ideal / speedup), by cause; they add up to 1. Negative: the cause gained something."""
        lost = -sum(math.log(factor) for factor in self.factors.values())
        return {n: -math.log(f) / lost if lost else 0.0 for n, f in self.factors.items()}


def limits(
    batch_size: int,
    sigma: float,
    gamma: int,
    times: RoundTimes,
    *,
    sampling_s: float,
    measured: bool,
) -> Limits:
    """Eq. 4's factors; `sampling_s` is what a step of plain decoding spends besides its forward.

    Rejection counts against that: it costs nothing where a round samples no longer than a step.
    """
    parts = decompose(sigma, gamma, times)
    step = (times.target_decode_s + sampling_s) / times.target_decode_s
    values = (parts.acceptance, parts.target_efficiency, parts.drafting, parts.rejection * step)
    return Limits(
        batch_size=batch_size,
        gamma=gamma,
        measured=measured,
        factors=dict(zip(CAUSES, values, strict=True)),
    )


def of_measured(m: Measurement) -> Limits:
    """From the seconds and counts of all its repeats."""
    rounds, steps = sum(r.rounds for r in m.repeats), sum(r.rounds for r in m.baseline)
    times = RoundTimes(
        target_decode_s=sum(r.target_s for r in m.baseline) / steps,
        target_verify_s=sum(r.target_s for r in m.repeats) / rounds,
        draft_step_s=sum(r.draft_s for r in m.repeats) / rounds / m.point.gamma,
        reject_s=sum(r.reject_s for r in m.repeats) / rounds,
    )
    sampling_s = sum(r.reject_s for r in m.baseline) / steps
    point = m.point
    return limits(
        point.batch_size, m.sigma, point.gamma, times, sampling_s=sampling_s, measured=True
    )


def of_model(batch_size: int, sigma: float, seconds: RoundSeconds) -> Limits:
    """From predicted seconds at one point."""
    times = RoundTimes(
        target_decode_s=seconds.target_decode_s.item(),
        target_verify_s=seconds.target_verify_s.item(),
        draft_step_s=seconds.draft_step_s.item(),
        reject_s=seconds.reject_s.item(),
    )
    return limits(
        batch_size,
        sigma,
        int(seconds.gamma.item()),
        times,
        sampling_s=seconds.baseline_reject_s.item(),
        measured=False,
    )


def sentence(found: Limits) -> str:
    """Such as `B=32 gamma=3: of the ideal 4.00x, measured 1.47x is left; lost: 31 % to acceptance`."""
    kind, source = ("is left", "measured") if found.measured else ("would be left", "predicted")
    shares = found.shares
    lost = ", ".join(f"{100 * shares[n]:.0f} % to {n}" for n in CAUSES if shares[n] >= 0.005)
    won = ", ".join(f"{-100 * shares[n]:.0f} % by {n}" for n in CAUSES if shares[n] <= -0.005)
    return (
        f"B={found.batch_size} gamma={found.gamma}: of the ideal {found.ideal:.2f}x, "
        f"{source} {found.speedup:.2f}x {kind}; lost: {lost or 'nothing'}{f'; won back: {won}' if won else ''}."
    )
