"""What one forward of a ModelSpec must read and multiply, found out without loading it."""

from __future__ import annotations

from moesd_dist.models.shape import ModelShape, bytes_per_value, shape_of
from moesd_dist.models.sources import resolve_config
from moesd_dist.records import ModelSpec
from moesd_dist.theory.counts import ModelCounts


def counts_of(spec: ModelSpec) -> ModelCounts:
    """The counts of a model as it runs: widened, overridden, in its own dtype.

    Raises ValueError for a hub name, whose config is not here, and for an unknown family.
    """
    shape = known_shape(spec)
    return ModelCounts(
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        vocab_size=shape.vocab_size,
        streamed_non_expert_params=shape.streamed_non_expert_params,
        kv_values_per_token=shape.kv_values_per_token,
        num_moe_layers=shape.num_moe_layers,
        num_experts=shape.num_experts,
        top_k=shape.top_k,
        expert_params=shape.expert_params,
        bytes_per_value=float(bytes_per_value(spec.dtype)),
    )


def known_shape(spec: ModelSpec) -> ModelShape:
    """The shape, where `validate` would let an engine find out; raises as `counts_of` does."""
    config = resolve_config(spec)
    if config is None:
        raise ValueError(
            f"the size of {spec.location} is in a config that is not here; download it and give "
            "its folder as location, or choose a model of conf/model"
        )
    return shape_of(config)
