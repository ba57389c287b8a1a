"""MoESD's ten-parameter model: seconds of target, draft and rejection, and the speedup they give."""

# target(t) = bias + k1 G(t) + k2 N(t) + k3 G(T_exp(t)); draft(B) = draft_bias + draft_k G(B);
# reject(B) = reject_bias + reject_k B. Source: MoESD (arXiv 2505.19645), Algorithm 1 and Eq. 4.

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import Enum

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.moesd.points import (
    Floats,
    Points,
    Verified,
    activated_experts,
    as_floats,
    expert_loads,
)
from moesd_dist.theory.moesd.scaled_growth import scaled_growth


class Denominator(Enum):
    """Which round time divides the time of plain decoding."""

    EQ_4 = "eq_4"  # gamma * draft + verify + reject
    # Line 11 of Algorithm 1 as printed: draft + ar + verify + reject. It pays for one draft step
    # instead of gamma and adds a plain decoding step that no round makes, so no speedup could
    # exceed sigma (gamma + 1) / 2, which most of the paper's own table does. For comparison only.
    LINE_11 = "line_11"

    def of(self, gamma: Floats, *, ar: Floats, draft: Floats, verify: Floats) -> Floats:
        """Seconds of one round before rejection, from seconds of its forwards; all [points]."""
        if self is Denominator.EQ_4:
            return gamma * draft + verify
        return draft + ar + verify


@dataclass(frozen=True, slots=True, kw_only=True)
class MoesdParameters:
    """The ten parameters; all are seconds but `lam` and `s`, which are plain numbers.

    Raises ValueError if one is negative or not finite, lam is 0 or s is below 1.
    """

    bias: float  # target: what every forward costs
    k1: float  # target: dense parts, times G(t)
    k2: float  # target: one more activated expert in *every* MoE layer, times N(t)
    k3: float  # target: work per expert, times G(T_exp)
    draft_bias: float
    draft_k: float  # times G(B)
    reject_bias: float
    reject_k: float  # per sequence
    lam: float  # the knee of G as a share of the ridge point
    s: float  # the base of G

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(field.name, getattr(self, field.name))


def target_seconds(
    parameters: MoesdParameters,
    gate_tokens: npt.ArrayLike,
    *,
    top_k: npt.ArrayLike,
    num_experts: int,
    ridge_point: float,
) -> Floats:
    """Seconds of one target forward over `gate_tokens` (t > 0) tokens; [points] like it.

    t = B for plain decoding and B times the verified tokens for a verification; `top_k` is one
    number or [points].

    Raises ValueError as the laws of experts and roofline do, or if seconds exceed a double.
    """
    tokens = np.atleast_1d(as_floats(gate_tokens))
    chosen = np.broadcast_to(as_floats(top_k), tokens.shape)
    loads = expert_loads(num_experts, chosen, tokens)
    base, ridge, lam = parameters.s, ridge_point, parameters.lam
    return (
        parameters.bias
        + scaled_growth(parameters.k1, tokens, s=base, ridge=ridge, lam=lam)
        + parameters.k2 * activated_experts(num_experts, chosen, tokens)
        + scaled_growth(parameters.k3, loads, s=base, ridge=ridge, lam=lam)
    )


def draft_seconds(
    parameters: MoesdParameters, batch_size: npt.ArrayLike, *, ridge_point: float
) -> Floats:
    """Seconds of one draft step, one token for each of B sequences; [points] like `batch_size`."""
    batch = np.atleast_1d(as_floats(batch_size))
    return parameters.draft_bias + scaled_growth(
        parameters.draft_k, batch, s=parameters.s, ridge=ridge_point, lam=parameters.lam
    )


def reject_seconds(parameters: MoesdParameters, batch_size: npt.ArrayLike) -> Floats:
    """Seconds of the acceptance rule, once a round; [points] like `batch_size`."""
    return parameters.reject_bias + parameters.reject_k * np.atleast_1d(as_floats(batch_size))


def predicted_speedup(
    parameters: MoesdParameters,
    points: Points,
    *,
    verified: Verified = Verified.GAMMA,
    denominator: Denominator = Denominator.EQ_4,
) -> Floats:
    """AR time over SD time for the same tokens, [points]; the paper's Eq. 4.

    The defaults are the paper's model. `Verified.GAMMA_PLUS_ONE` is what engines run;
    `Denominator.LINE_11` is a misprint kept for comparison.
    """
    batch, gamma, ridge = as_floats(points.batch_size), as_floats(points.gamma), points.ridge_point
    ar = _target_at(parameters, points, batch)
    verify = _target_at(parameters, points, points.verified_tokens(verified))
    draft = draft_seconds(parameters, batch, ridge_point=ridge)
    round_s = denominator.of(gamma, ar=ar, draft=draft, verify=verify)
    tokens = as_floats(points.sigma) * (gamma + 1.0)
    return tokens * ar / (round_s + reject_seconds(parameters, batch))


def _target_at(parameters: MoesdParameters, points: Points, tokens: Floats) -> Floats:
    return target_seconds(
        parameters,
        tokens,
        top_k=points.top_k,
        num_experts=points.num_experts,
        ridge_point=points.ridge_point,
    )


def _check(name: str, value: float) -> None:
    least = 1.0 if name == "s" else 0.0
    if not least <= value < math.inf or (name == "lam" and value == 0.0):
        raise ValueError(
            f"{name} must be finite and {'positive' if name == 'lam' else f'at least {least:g}'},"
            f" got {value}; see ParameterBounds for the paper's ranges"
        )
