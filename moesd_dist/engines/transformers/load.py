"""Weights into memory: the embedded pair (widened or not), a checkpoint, or a shape with random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from moesd_dist.engines.transformers import attention, experts_path
from moesd_dist.engines.transformers.local_checkpoint import load_share
from moesd_dist.engines.transformers.local_experts import (
    ExpertShare,
    LocalExperts,
    room_for,
    share_of,
)
from moesd_dist.engines.transformers.model_config import load_config as load_config
from moesd_dist.engines.transformers.random_weights import random_model
from moesd_dist.models.sources import factors_of, weights_location
from moesd_dist.models.widening import WideningFactors, widen_state
from moesd_dist.records import ModelSource, ModelSpec

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def load_model(spec: ModelSpec, device: torch.device, experts: LocalExperts | None = None) -> Any:
    """A causal model in evaluation mode, with our attention; experts are installed by the engine.

    With `experts`, MoE layers hold these only, and `num_experts` of their experts modules is the
    number of slots; a model without MoE layers is loaded whole.
    """
    attention.register()
    experts_path.register()
    share = share_of(load_config(spec), experts) if experts else None
    model = _weights(spec, DTYPES[spec.dtype], device, share)
    if share is not None:
        share.number_slots(model)
    _refuse_sliding_windows(spec, model.config)
    model.config._attn_implementation = attention.ATTENTION
    return model.eval().requires_grad_(requires_grad=False)


def load_tokenizer(spec: ModelSpec) -> Any | None:
    """The model's own tokenizer; None for a shape, which has none."""
    if spec.source is ModelSource.shape:
        return None
    return AutoTokenizer.from_pretrained(
        weights_location(spec), trust_remote_code=spec.trust_remote_code
    )


def _weights(
    spec: ModelSpec, dtype: torch.dtype, device: torch.device, share: ExpertShare | None
) -> Any:
    if spec.source is ModelSource.shape:
        return random_model(load_config(spec), dtype, device, seed=spec.seed, share=share)
    plain = _stored(spec, dtype, share)
    factors = factors_of(spec)
    if factors == WideningFactors():
        return plain.to(device)
    state = dict(widen_state(plain.state_dict(), factors))
    with room_for(share):
        wide = type(plain).from_pretrained(
            None, config=load_config(spec), state_dict=state, dtype=dtype
        )
    return wide.to(device)


def _stored(spec: ModelSpec, dtype: torch.dtype, share: ExpertShare | None) -> Any:
    """The weights as they lie on disk or on the hub, before any widening."""
    unwidened = replace(spec, widen_hidden=1, widen_expert=1, widen_heads=1)
    where, config = weights_location(spec), load_config(unwidened)
    if share is not None:
        return load_share(where, config, dtype, share)
    return AutoModelForCausalLM.from_pretrained(
        where,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=Path(where).is_dir(),
        trust_remote_code=spec.trust_remote_code,
    )


def _refuse_sliding_windows(spec: ModelSpec, config: Any) -> None:
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or getattr(config, "sliding_window", None):
        raise ValueError(
            f"model {spec.name} has layers of kind {', '.join(sorted(kinds))} and a sliding window of "
            f"{getattr(config, 'sliding_window', None)}; the transformers engine keeps full attention "
            "only: override sliding_window with null if the context is shorter"
        )


def num_experts_of(model: nn.Module) -> int:
    """Logical routed experts per layer, wherever they are; 0 for a dense model."""
    modules = experts_path.experts_modules(model)
    if not modules:
        return 0
    return int(getattr(modules[0], "moesd_logical_experts", modules[0].num_experts))
