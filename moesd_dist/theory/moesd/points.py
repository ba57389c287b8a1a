"""Where speedups are measured or predicted: batch size, draft length, experts per token, sigma."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.experts import expected_activated_experts, expected_expert_load

Floats = npt.NDArray[np.float64]


class Verified(Enum):
    """How many tokens of a sequence one verification passes through the target."""

    GAMMA = "gamma"  # MoESD's model: the drafts alone
    GAMMA_PLUS_ONE = "gamma_plus_one"  # engines: the last accepted token goes first

    def tokens(self, gamma: Floats) -> Floats:
        """Tokens per sequence, in the shape of `gamma`."""
        return gamma if self is Verified.GAMMA else gamma + 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Points:
    """Points of one target on one device; every array is [points] and kept as float64.

    Raises ValueError if lengths differ, a count is below 1, top_k exceeds num_experts, sigma lies
    outside [1 / (gamma + 1), 1] or the ridge point is not positive.
    """

    batch_size: npt.ArrayLike
    gamma: npt.ArrayLike
    top_k: npt.ArrayLike
    sigma: npt.ArrayLike
    num_experts: int
    ridge_point: float  # FLOP per byte; compared with token counts, so for 16-bit weights only

    def __post_init__(self) -> None:
        for name in ("batch_size", "gamma", "top_k", "sigma"):
            _store(self, name, like=self.batch_size)
        for name in ("batch_size", "gamma", "top_k"):
            _check_count(name, as_floats(getattr(self, name)))
        _check_top_k(as_floats(self.top_k), self.num_experts)
        _check_sigma(as_floats(self.sigma), as_floats(self.gamma))
        if not 0.0 < self.ridge_point < np.inf:
            raise ValueError(
                f"ridge_point must be positive and finite, got {self.ridge_point};"
                " use roofline.ridge_point of the device"
            )

    def __len__(self) -> int:
        return int(as_floats(self.batch_size).size)

    def verified_tokens(self, verified: Verified) -> Floats:
        """Tokens that enter one gate in a verification, over all sequences; [points]."""
        return as_floats(self.batch_size) * verified.tokens(as_floats(self.gamma))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observations(Points):
    """Points with the speedup that was measured there, [points].

    Raises ValueError as `Points` does, or if a speedup is not positive and finite.
    """

    speedup: npt.ArrayLike

    def __post_init__(self) -> None:
        Points.__post_init__(self)
        _store(self, "speedup", like=self.batch_size)
        measured = as_floats(self.speedup)
        wrong = measured[~((measured > 0.0) & np.isfinite(measured))]
        if wrong.size:
            raise ValueError(
                f"a speedup is positive and finite, got {wrong[0]}; use AR time / SD time"
            )


def as_floats(values: npt.ArrayLike) -> Floats:
    """The values as float64, not copied if they are that already."""
    return np.asarray(values, dtype=np.float64)


def activated_experts(num_experts: int, top_k: Floats, gate_tokens: Floats) -> Floats:
    """N(t) where each point has its own top_k; all arrays [points]."""
    return _per_top_k(expected_activated_experts, num_experts, top_k, gate_tokens)


def expert_loads(num_experts: int, top_k: Floats, gate_tokens: Floats) -> Floats:
    """T_exp(t) where each point has its own top_k; all arrays [points]."""
    return _per_top_k(expected_expert_load, num_experts, top_k, gate_tokens)


def _per_top_k(
    law: Callable[[int, int, Floats], Floats], num_experts: int, top_k: Floats, gate_tokens: Floats
) -> Floats:
    """A law for one top_k, applied to the points of each top_k in turn."""
    found = np.empty_like(gate_tokens)
    for value in np.unique(top_k):
        chosen = top_k == value
        found[chosen] = law(num_experts, int(value), gate_tokens[chosen])
    return found


def _store(points: Points, name: str, *, like: npt.ArrayLike) -> None:
    """Keep one field of a frozen record as an array of its own that nobody can write to."""
    values = np.array(getattr(points, name), dtype=np.float64)
    if values.ndim != 1 or not values.size or values.shape != np.shape(like):
        raise ValueError(
            f"{name} holds one number per point, got shape {values.shape};"
            f" use [points] as batch_size, which has {np.shape(like)}"
        )
    values.flags.writeable = False
    object.__setattr__(points, name, values)


def _check_count(name: str, values: Floats) -> None:
    wrong = values[~((values >= 1.0) & (values == np.floor(values)) & np.isfinite(values))]
    if wrong.size:
        raise ValueError(f"{name} must be a whole number from 1 on, got {wrong[0]}; use counts")


def _check_top_k(top_k: Floats, num_experts: int) -> None:
    if top_k.max() > num_experts:
        raise ValueError(
            f"top_k {top_k.max():.0f} exceeds num_experts {num_experts}; use 1..{num_experts}"
        )


def _check_sigma(sigma: Floats, gamma: Floats) -> None:
    wrong = np.flatnonzero(~((sigma >= 1.0 / (gamma + 1.0)) & (sigma <= 1.0)))
    if wrong.size:
        raise ValueError(
            f"sigma lies between 1 / (gamma + 1) and 1, got {sigma[wrong[0]]} at gamma"
            f" {gamma[wrong[0]]:.0f}; use acceptance_length / (gamma + 1), the bonus token included"
        )
