"""How long one forward takes: a roofline for each operation, and what no device makes faster."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.device import DeviceFigures, all_reduce_s
from moesd_dist.theory.experts import expected_activated_experts

_Floats = npt.NDArray[np.float64]

BYTES = 2.0  # of a 16-bit weight, activation or cached value
LOGIT_BYTES = 4.0  # samplers work in 32 bits
ALL_REDUCES = 2.0  # per layer: after attention and after the feed-forward block
REFERENCE_CLOCK_HZ = 1.41e9  # A100 and A800: where `layer_overhead_s` is stated


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCounts:
    """What a forward must read and multiply; the names are those of `models.shape.ModelShape`."""

    num_layers: int
    hidden_size: int
    vocab_size: int
    streamed_non_expert_params: int  # read whole by every forward, the head included
    kv_values_per_token: int  # over all layers
    num_moe_layers: int = 0
    num_experts: int = 0  # routed, per MoE layer
    top_k: int = 0
    expert_params: int = 0  # of one routed expert


@dataclass(frozen=True, slots=True, kw_only=True)
class Achieved:
    """What an engine makes of a device: efficiencies scale with it, overheads of the host do not.

    A layer's overhead is small kernels and the gaps between them. Waiting for the host, they take
    as long on every device; replayed from a graph, they follow the clock: `clocked_share` of it.

    Raises ValueError if an efficiency or share exceeds 1 or any figure is negative.
    """

    memory_efficiency: float  # achieved over peak bytes/s
    compute_efficiency: float  # achieved over peak FLOP/s
    logit_passes: float  # times a sampler reads or writes all logits, at memory speed
    forward_overhead_s: float  # of the engine, once a forward: scheduling, inputs, outputs
    layer_overhead_s: float  # once a layer, at the reference clock
    clocked_share: float  # of the layer overhead that shrinks as the clock rises
    round_overhead_s: float  # once a round of speculation: acceptance rule, second model's set-up

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("efficiency") and not 0.0 < value <= 1.0:
                raise ValueError(f"{field.name} must lie in (0, 1], got {value}; 1 is the peak")
            most = 1.0 if field.name.endswith("share") else math.inf
            if not (0.0 <= value <= most and math.isfinite(value)):
                raise ValueError(f"{field.name} must lie in [0, {most}], got {value}; 0 is ideal")

    def layer_s(self, clock_hz: float) -> float:
        """Overhead of one layer on a device of that clock."""
        slowed = self.clocked_share * REFERENCE_CLOCK_HZ / clock_hz
        return self.layer_overhead_s * (1.0 - self.clocked_share + slowed)


IDEAL = Achieved(
    memory_efficiency=1.0,
    compute_efficiency=1.0,
    logit_passes=0.0,
    forward_overhead_s=0.0,
    layer_overhead_s=0.0,
    clocked_share=0.0,
    round_overhead_s=0.0,
)


def forward_s(
    model: ModelCounts,
    device: DeviceFigures,
    achieved: Achieved,
    *,
    batch_sizes: _Floats,
    tokens_each: int,
    context_tokens: float,
    tp_size: int,
) -> _Floats:
    """Seconds of one forward of `tokens_each` tokens a sequence, for each batch size.

    `context_tokens` is the mean length of a sequence. The cache costs bytes only: grouped heads
    and a few tokens keep its intensity below any ridge point.
    """
    tokens = batch_sizes * tokens_each
    cache_bytes = BYTES * batch_sizes * context_tokens * model.kv_values_per_token
    sharded_s = sum(
        _roofline_s(moved, operations, device, achieved)
        for moved, operations in [*_products(model, tokens), (cache_bytes, np.zeros_like(tokens))]
    )
    added_up_s = all_reduce_s(BYTES * tokens * model.hidden_size, device, tp_size=tp_size)
    layers_s = model.num_layers * (achieved.layer_s(device.clock_hz) + ALL_REDUCES * added_up_s)
    sampled_s = _sampling_s(model, tokens, device, achieved)
    return sharded_s / tp_size + layers_s + sampled_s + achieved.forward_overhead_s


def _products(model: ModelCounts, tokens: _Floats) -> list[tuple[_Floats, _Floats]]:
    """(weight bytes, operations) of the dense layers, the head and the routed experts."""
    head = model.hidden_size * model.vocab_size
    whole = [model.streamed_non_expert_params - head, head]
    products = [(np.full_like(tokens, BYTES * size), 2.0 * size * tokens) for size in whole]
    return [*products, _experts(model, tokens)] if model.num_experts else products


def _experts(model: ModelCounts, tokens: _Floats) -> tuple[_Floats, _Floats]:
    activated = expected_activated_experts(model.num_experts, model.top_k, tokens)
    of_all_layers = float(model.num_moe_layers * model.expert_params)
    return BYTES * of_all_layers * activated, 2.0 * of_all_layers * model.top_k * tokens


def _roofline_s(
    moved: _Floats, operations: _Floats, device: DeviceFigures, achieved: Achieved
) -> _Floats:
    """The longer of moving the bytes and doing the operations, in seconds on one device."""
    moving_s = moved / (device.bytes_per_s * achieved.memory_efficiency)
    return np.maximum(moving_s, operations / (device.flops * achieved.compute_efficiency))


def _sampling_s(
    model: ModelCounts, tokens: _Floats, device: DeviceFigures, achieved: Achieved
) -> _Floats:
    """Every sampler pass goes over all logits of all tokens, gathered on one device."""
    moved = achieved.logit_passes * LOGIT_BYTES * tokens * model.vocab_size
    return moved / (device.bytes_per_s * achieved.memory_efficiency)
