"""What one forward of a model must read and multiply, as counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCounts:
    """One model; the names are those of `models.shape.ModelShape`. A dense one has no experts.

    All zeros but `bytes_per_value` is a draft without a model, such as n-gram lookup.
    """

    num_layers: int
    hidden_size: int
    vocab_size: int
    streamed_non_expert_params: int  # read whole by every forward, the head included
    kv_values_per_token: int  # over all layers
    num_moe_layers: int = 0
    num_experts: int = 0  # routed, per MoE layer
    top_k: int = 0  # the model's own; a forward may use another
    expert_params: int = 0  # of one routed expert
    bytes_per_value: float = 2.0  # of weights and cached values


NO_MODEL = ModelCounts(
    num_layers=0,
    hidden_size=0,
    vocab_size=0,
    streamed_non_expert_params=0,
    kv_values_per_token=0,
)
