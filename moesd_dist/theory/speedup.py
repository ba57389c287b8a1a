"""What speculative decoding gains over plain decoding, and which part of a round eats the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

from moesd_dist.theory.acceptance import check_gamma, check_sigma


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTimes:
    """Seconds of the forwards in one round, for one batch on one engine.

    `target_verify_s` is taken as it was measured: MoESD's Eq. 4 verifies gamma tokens a sequence,
    engines verify gamma + 1. Whoever makes the record says which.

    Raises ValueError if a target forward takes no time, or any time is negative or not finite.
    """

    target_decode_s: float  # one target forward of one token a sequence: T_T(B, 1)
    target_verify_s: float  # one target forward over the drafts: T_T(B, gamma)
    draft_step_s: float = 0.0  # one draft forward of one token a sequence: T_D(B, 1)
    reject_s: float = 0.0  # the acceptance rule, once a round: T_reject

    def __post_init__(self) -> None:
        _check_positive("target_decode_s", self.target_decode_s)
        _check_positive("target_verify_s", self.target_verify_s)
        _check_spent("draft_step_s", self.draft_step_s)
        _check_spent("reject_s", self.reject_s)

    def round_s(self, gamma: int) -> float:
        """Seconds of one round: verification, then gamma draft steps, then rejection."""
        return self.target_verify_s + gamma * self.draft_step_s + self.reject_s


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedupParts:
    """A speedup taken apart: five factors whose product it is, and three shares of the round.

    Each of the last four factors is 1 when its cause costs nothing; only `target_efficiency` can
    exceed 1, and only through noise. The shares are what each term is of Eq. 4's denominator, so
    they add up to 1 and, unlike the factors, do not depend on an order.
    """

    ideal: float  # gamma + 1: every draft accepted, one round as cheap as one decoding step
    acceptance: float  # sigma
    target_efficiency: float
    drafting: float
    rejection: float
    verify_share: float
    draft_share: float
    reject_share: float

    @property
    def speedup(self) -> float:
        """The product of the five factors."""
        tokens = self.ideal * self.acceptance
        return tokens * self.target_efficiency * self.drafting * self.rejection


def target_efficiency(target_decode_s: float, target_verify_s: float) -> float:
    """Seconds of one decoding forward over those of one verification: 1 is ideal.

    Source: MoESD (arXiv 2505.19645). Raises ValueError unless both are positive and finite.
    """
    _check_positive("target_decode_s", target_decode_s)
    _check_positive("target_verify_s", target_verify_s)
    return target_decode_s / target_verify_s


def speedup(sigma: float, gamma: int, times: RoundTimes) -> float:
    """Plain decoding's seconds over speculative decoding's for the same tokens: MoESD's Eq. 4.

        sigma (gamma + 1) T_T(B,1) / (gamma T_D(B,1) + T_T(B,gamma) + T_reject)

    Algorithm 1 of the paper (line 11) prints another denominator, draft + decode + verify +
    reject: one draft step instead of gamma, and a decoding step that no round contains. It could
    never exceed sigma (gamma + 1) / 2, which most of the paper's own measured speedups do.
    The paper verifies gamma tokens a sequence and engines gamma + 1: see `RoundTimes`.

    Raises ValueError if gamma is negative or sigma lies outside [1 / (gamma + 1), 1].
    """
    check_gamma(gamma, least=0)
    check_sigma(sigma, gamma)
    return sigma * (gamma + 1) * times.target_decode_s / times.round_s(gamma)


def decompose(sigma: float, gamma: int, times: RoundTimes) -> SpeedupParts:
    """Eq. 4 as a product: ideal * acceptance * target_efficiency * drafting * rejection.

    The denominator grows term by term, and each factor is what its term takes away from the
    speedup so far: verification alone (target efficiency), then gamma draft steps on top of it
    (drafting), then rejection on top of both. Another order would give other factors.

    Raises ValueError if gamma is negative or sigma lies outside [1 / (gamma + 1), 1].
    """
    check_gamma(gamma, least=0)
    check_sigma(sigma, gamma)
    drafts_s, round_s = gamma * times.draft_step_s, times.round_s(gamma)
    drafted_s = times.target_verify_s + drafts_s
    return SpeedupParts(
        ideal=gamma + 1.0,
        acceptance=sigma,
        target_efficiency=target_efficiency(times.target_decode_s, times.target_verify_s),
        drafting=times.target_verify_s / drafted_s,
        rejection=drafted_s / round_s,
        verify_share=times.target_verify_s / round_s,
        draft_share=drafts_s / round_s,
        reject_share=times.reject_s / round_s,
    )


def _check_positive(name: str, seconds: float) -> None:
    if not 0.0 < seconds < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {seconds}; time a forward first")


def _check_spent(name: str, seconds: float) -> None:
    if not 0.0 <= seconds < math.inf:
        raise ValueError(f"{name} must be 0 or more and finite, got {seconds}; use 0 if not spent")
