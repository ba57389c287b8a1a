"""Which experts a batch of tokens wakes up when every token chooses uniformly and independently."""

# A token takes top_k distinct experts out of num_experts, so it misses a given one with chance
# 1 - rho, rho = top_k / num_experts. Shared experts are always on and never counted here.

from __future__ import annotations

import math
from typing import Any, overload

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]
_Numbers = npt.NDArray[np.integer[Any] | np.floating[Any]]


def activation_ratio(num_experts: int, top_k: int) -> float:
    """The share of its routed experts that one token uses (rho), in (0, 1].

    Raises ValueError unless 1 <= top_k <= num_experts.
    """
    if not num_experts >= 1:
        raise ValueError(f"num_experts must be at least 1, got {num_experts}; count routed experts")
    if not top_k >= 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}; use 1..{num_experts}")
    if top_k > num_experts:
        raise ValueError(f"top_k {top_k} exceeds num_experts {num_experts}; use 1..{num_experts}")
    return top_k / num_experts


@overload
def expected_activated_experts(num_experts: int, top_k: int, gate_tokens: float) -> float: ...
@overload
def expected_activated_experts(num_experts: int, top_k: int, gate_tokens: _Numbers) -> _Floats: ...
def expected_activated_experts(
    num_experts: int, top_k: int, gate_tokens: float | _Numbers
) -> float | _Floats:
    """Expected distinct experts hit in one layer by one forward: N(t) = E (1 - (1 - K/E)^t).

    `gate_tokens` (t) is summed over data-parallel ranks; the result has its shape.
    Source: MoESD (arXiv 2505.19645), N(t).

    Raises ValueError if gate_tokens is negative or top_k lies outside 1..num_experts.
    """
    rho = activation_ratio(num_experts, top_k)
    tokens = np.asarray(gate_tokens, dtype=np.float64)
    if not np.all(tokens >= 0.0):
        raise ValueError(f"gate_tokens must be >= 0, got {tokens.min()}; count tokens at the gate")
    if top_k == num_experts:  # log1p(-1) is -inf, and 0 tokens times that is nan
        return _shaped(np.where(tokens > 0.0, float(num_experts), 0.0))
    return _shaped(-num_experts * np.expm1(tokens * math.log1p(-rho)))


def full_activation_threshold(num_experts: int, top_k: int, tau: float = 0.95) -> int:
    """The fewest gate tokens that are expected to hit the share tau of the experts (T_thres).

    Tokens are global: summed over data-parallel ranks.
    Source: MoESD (arXiv 2505.19645), T_thres = ceil(log_{1-rho}(1 - tau)).

    Raises ValueError unless 0 < tau < 1, or if top_k lies outside 1..num_experts.
    """
    rho = activation_ratio(num_experts, top_k)
    if not 0.0 < tau < 1.0:
        raise ValueError(f"tau must lie between 0 and 1, both excluded, got {tau}; try 0.95")
    if top_k == num_experts:
        return 1
    exact = math.log1p(-tau) / math.log1p(-rho)
    # The rounding error of two logarithms must not turn a whole number into the next one.
    return max(1, math.ceil(exact * (1.0 - 1e-12)))


@overload
def expected_expert_load(num_experts: int, top_k: int, gate_tokens: float) -> float: ...
@overload
def expected_expert_load(num_experts: int, top_k: int, gate_tokens: _Numbers) -> _Floats: ...
def expected_expert_load(
    num_experts: int, top_k: int, gate_tokens: float | _Numbers
) -> float | _Floats:
    """Mean tokens per activated expert: T_exp(t) = t K / N(t), at least 1 from one token on.

    `gate_tokens` (t) is summed over data-parallel ranks; the result has its shape.
    Source: MoESD (arXiv 2505.19645), T_exp.

    Raises ValueError if gate_tokens is not positive or top_k lies outside 1..num_experts.
    """
    tokens = np.asarray(gate_tokens, dtype=np.float64)
    if not np.all(tokens > 0.0):
        raise ValueError(f"gate_tokens must be > 0, got {tokens.min()}; an idle gate has no load")
    return _shaped(tokens * top_k / expected_activated_experts(num_experts, top_k, tokens))


def _shaped(values: _Floats) -> float | _Floats:
    """A float when the caller gave one number, else the array."""
    return values if values.ndim else float(values)
