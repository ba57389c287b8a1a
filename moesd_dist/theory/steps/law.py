"""Seconds of one forward: a roofline for each operation, and what no bandwidth shortens."""

# One law for everything that is predicted: of the target and of the draft, decoding and verifying,
# from a data sheet (`operations.rates_of`) or from measured steps (`steps.fit`).

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.counts import ModelCounts

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What one engine makes of one model on its devices together.

    Raises ValueError if a time is negative, a rate is not positive or overlap is below 1.
    """

    forward_s: float  # once a forward: launches, scheduling, latencies
    expert_s: (
        float  # once per activated expert and layer: launches, gathers, a cold start of reading
    )
    token_s: float  # per token: activations, logits, what links carry
    sequence_s: float  # per sequence: its attention beyond reading the cache
    bytes_per_s: float  # weights and cache
    flops: float  # products that every token passes: attention, shared experts, dense layers, head
    expert_flops: float  # products of routed experts: fewer rows each
    overlap: float  # norm that joins reading and multiplying: 1 adds them, inf takes the longer

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(field.name, getattr(self, field.name))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forwards:
    """Forwards of one model; arrays of one shape, or numbers that broadcast."""

    sequences: npt.ArrayLike
    tokens_each: npt.ArrayLike  # of a sequence: 1 to decode, gamma + 1 to verify
    context_tokens: npt.ArrayLike  # mean length of a sequence in the cache
    activated_experts: npt.ArrayLike = 0.0  # distinct ones in a layer, mean over layers
    top_k: npt.ArrayLike = 0.0


def forward_seconds(model: ModelCounts, rates: Rates, forwards: Forwards) -> _Floats:
    """Seconds of each forward, in the shape of its arrays.

        forward_s + token_s t + sequence_s B + cache / bytes_per_s
          + (dense bytes / bytes_per_s  joined with  dense operations / flops)
          + layers (expert_s N + (bytes of N experts / bytes_per_s  joined with  operations / expert_flops))

    with t = B s tokens and "joined" a norm of exponent `overlap`. The cache costs bytes only:
    grouped heads and a few tokens keep its intensity below any ridge point.
    """
    sequences, each, context, activated, top_k = (
        np.asarray(getattr(forwards, f.name), dtype=np.float64) for f in fields(Forwards)
    )
    tokens, rate = sequences * each, rates.bytes_per_s
    dense_bytes = model.bytes_per_value * model.streamed_non_expert_params
    dense_ops = 2.0 * model.streamed_non_expert_params * tokens
    cache = model.bytes_per_value * model.kv_values_per_token * sequences * context
    return (
        rates.forward_s
        + rates.token_s * tokens
        + rates.sequence_s * sequences
        + cache / rate
        + joined(dense_bytes / rate, dense_ops / rates.flops, rates.overlap)
        + expert_seconds(model, rates, activated, top_k * tokens)
    )


def expert_seconds(
    model: ModelCounts, rates: Rates, activated: _Floats, assignments: _Floats
) -> _Floats:
    """Of all MoE layers, shaped as its arrays; `assignments` are tokens times experts per token."""
    moved = model.bytes_per_value * model.expert_params * activated
    operations = 2.0 * model.expert_params * assignments
    products = joined(moved / rates.bytes_per_s, operations / rates.expert_flops, rates.overlap)
    return model.num_moe_layers * (rates.expert_s * activated + products)


def joined(reading: npt.ArrayLike, multiplying: npt.ArrayLike, overlap: float) -> _Floats:
    """(a^p + b^p)^(1/p) of two times: their sum at p = 1, the longer one at infinity."""
    a, b = np.asarray(reading, dtype=np.float64), np.asarray(multiplying, dtype=np.float64)
    longer, shorter = np.maximum(a, b), np.minimum(a, b)
    if math.isinf(overlap):
        return longer
    share = np.divide(shorter, longer, out=np.zeros_like(longer), where=longer > 0.0)
    return np.asarray(longer * (1.0 + share**overlap) ** (1.0 / overlap))


def _check(name: str, value: float) -> None:
    if name == "overlap":
        if not value >= 1.0:
            raise ValueError(
                f"overlap must be at least 1, got {value}; 1 adds, inf takes the longer"
            )
    elif name.endswith(("_per_s", "flops")):
        if not 0.0 < value < math.inf:
            raise ValueError(
                f"{name} must be positive and finite, got {value}; use bytes/s or FLOP/s"
            )
    elif not 0.0 <= value < math.inf:
        raise ValueError(f"{name} must be 0 or more and finite, got {value}; 0 is ideal")
