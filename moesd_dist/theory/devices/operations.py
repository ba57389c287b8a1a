"""From a data sheet to the rates of a forward: what an engine achieves of a device, and what none does."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.counts import ModelCounts
from moesd_dist.theory.devices.device import DeviceFigures, all_reduce_s
from moesd_dist.theory.experts import expected_activated_experts
from moesd_dist.theory.steps.law import Forwards, Rates, forward_seconds

_Floats = npt.NDArray[np.float64]

LOGIT_BYTES = 4.0  # samplers work in 32 bits
ALL_REDUCES = 2.0  # per layer: after attention and after the feed-forward block
REFERENCE_CLOCK_HZ = 1.41e9  # A100 and A800: where `layer_overhead_s` is stated


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


def rates_of(
    model: ModelCounts, device: DeviceFigures, achieved: Achieved, *, tp_size: int
) -> Rates:
    """What tp_size devices together make of a model, never measured: from the data sheet.

    Weights and products are shared out evenly; two all-reduces a layer and the sampler, which
    works on one device, are not made shorter.
    """
    memory = device.bytes_per_s * achieved.memory_efficiency
    compute = device.flops * achieved.compute_efficiency * tp_size
    token_bytes = np.array([0.0, model.bytes_per_value * model.hidden_size])
    hops_s, token_hops_s = all_reduce_s(token_bytes, device, tp_size=tp_size)
    layer_s = achieved.layer_s(device.clock_hz) + ALL_REDUCES * hops_s
    logits_s = achieved.logit_passes * LOGIT_BYTES * model.vocab_size / memory
    return Rates(
        forward_s=achieved.forward_overhead_s + model.num_layers * layer_s,
        expert_s=0.0,
        token_s=model.num_layers * ALL_REDUCES * float(token_hops_s - hops_s) + logits_s,
        sequence_s=0.0,
        bytes_per_s=memory * tp_size,
        flops=compute,
        expert_flops=compute,
        overlap=math.inf,
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

    `context_tokens` is the mean length of a sequence; experts follow the uniform law.
    """
    tokens = batch_sizes * tokens_each
    activated = (
        expected_activated_experts(model.num_experts, model.top_k, tokens)
        if model.num_experts
        else np.zeros_like(tokens)
    )
    forwards = Forwards(
        sequences=batch_sizes,
        tokens_each=tokens_each,
        context_tokens=context_tokens,
        activated_experts=activated,
        top_k=model.top_k,
    )
    return forward_seconds(model, rates_of(model, device, achieved, tp_size=tp_size), forwards)
