"""Between which limits the ten parameters of MoESD's model may lie on a given device."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from moesd_dist.theory.moesd.forward_time import MoesdParameters

_SLOWEST = 5.0  # MoESD: a load takes between one and five times its bytes at peak bandwidth

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterBounds:
    """The least and the most of each parameter; seconds but `lam` and `s`. Limits may coincide.

    Source: MoESD (arXiv 2505.19645), the bounds of its fit.

    Raises ValueError if an interval is empty, or bias, k2 or draft_bias may be 0 (speedups alone
    fix no time scale: these limits are all that does).
    """

    bias: Interval
    k2: Interval
    draft_bias: Interval
    reject_bias: Interval
    reject_k: Interval
    k1: Interval = (0.0, math.inf)
    k3: Interval = (0.0, math.inf)
    draft_k: Interval = (0.0, math.inf)
    lam: Interval = (0.2, 1.0)
    s: Interval = (1.0, 2.0)

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_interval(field.name, getattr(self, field.name))
        for name in ("bias", "k2", "draft_bias", "lam"):
            _check_positive(f"the lower limit of {name}", getattr(self, name)[0])
        if self.s[0] < 1.0:
            raise ValueError(f"s is at least 1, got a lower limit of {self.s[0]}; use (1.0, 2.0)")

    def contain(self, parameters: MoesdParameters) -> bool:
        """Whether every parameter lies within its limits, which belong to the interval."""
        return not self.outside(parameters)

    def outside(self, parameters: MoesdParameters) -> tuple[str, ...]:
        """Names of the parameters that lie beyond their limits by more than rounding."""
        return tuple(
            field.name
            for field in fields(self)
            if not _within(getattr(parameters, field.name), getattr(self, field.name))
        )


def bounds_from(
    *,
    non_ffn_bytes: float,
    expert_bytes: float,
    num_moe_layers: int,
    draft_bytes: float,
    bytes_per_s: float,
    longest_reject_s: float,
    draft_bytes_per_s: float | None = None,
) -> ParameterBounds:
    """The paper's limits from a model's bytes and a device's bandwidth.

    `expert_bytes` is one routed expert of one layer. N(t) counts experts of one layer and every
    MoE layer wakes up as many, so k2 is the seconds for one more expert in each of
    `num_moe_layers` layers. (The paper says "one expert". Taken for one layer, all 64 experts of
    Qwen2-57B-A14B on two A800 would load in 0.9 to 4.4 ms; they hold 99 GB, 25 ms at 4 TB/s.)

    `bytes_per_s` sums the devices that the target spans; `draft_bytes_per_s` is for a draft that
    runs on fewer of them, and the same unless given. `longest_reject_s` is the longest rejection
    seen in one round; 0 switches that term off.

    Raises ValueError unless bytes, layers and rates are positive and longest_reject_s >= 0.
    """
    _check_positive("bytes_per_s", bytes_per_s)
    draft_rate = bytes_per_s if draft_bytes_per_s is None else draft_bytes_per_s
    _check_positive("draft_bytes_per_s", draft_rate)
    reject = (0.0, longest_reject_s)
    return ParameterBounds(
        bias=_loading("non_ffn_bytes", non_ffn_bytes, bytes_per_s),
        k2=_loading("expert_bytes * num_moe_layers", expert_bytes * num_moe_layers, bytes_per_s),
        draft_bias=_loading("draft_bytes", draft_bytes, draft_rate),
        reject_bias=reject,
        reject_k=reject,
    )


def _loading(name: str, count: float, bytes_per_s: float) -> Interval:
    _check_positive(name, count)
    return count / bytes_per_s, _SLOWEST * count / bytes_per_s


def _within(value: float, limits: Interval) -> bool:
    slack = 1e-12 * abs(value)
    return limits[0] - slack <= value <= limits[1] + slack


def _check_interval(name: str, limits: Interval) -> None:
    low, high = limits
    if not 0.0 <= low <= high:
        raise ValueError(
            f"limits of {name} must be 0 <= least <= most, got {low} and {high}; swap or widen them"
        )


def _check_positive(name: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}; use bytes and bytes/s")
