"""Weights into memory: the embedded pair (widened or not), a checkpoint, or a shape with random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from moesd_dist.engines.transformers import attention, experts_path
from moesd_dist.models.sources import factors_of, finish_config, resolve_config, weights_location
from moesd_dist.models.widening import WideningFactors, widen_state
from moesd_dist.records import ModelSource, ModelSpec

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def load_model(spec: ModelSpec, device: torch.device) -> Any:
    """A causal model in evaluation mode, with our attention; experts are installed by the engine."""
    attention.register()
    experts_path.register()
    model = _weights(spec, DTYPES[spec.dtype], device)
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


def load_config(spec: ModelSpec) -> Any:
    """The config that the model runs with; asks the hub where the spec names one."""
    plain = resolve_config(spec)
    if plain is None:
        stored = AutoConfig.from_pretrained(spec.location, trust_remote_code=spec.trust_remote_code)
        plain = finish_config(stored.to_dict(), spec)
    return AutoConfig.for_model(plain.pop("model_type"), **plain)


def _weights(spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> Any:
    if spec.source is ModelSource.shape:
        return _random(spec, dtype, device)
    plain = _stored(spec, dtype)
    factors = factors_of(spec)
    if factors == WideningFactors():
        return plain.to(device)
    state = dict(widen_state(plain.state_dict(), factors))
    wide = type(plain).from_pretrained(
        None, config=load_config(spec), state_dict=state, dtype=dtype
    )
    return wide.to(device)


def _stored(spec: ModelSpec, dtype: torch.dtype) -> Any:
    """The weights as they lie on disk or on the hub, before any widening."""
    unwidened = replace(spec, widen_hidden=1, widen_expert=1, widen_heads=1)
    where = weights_location(spec)
    return AutoModelForCausalLM.from_pretrained(
        where,
        config=load_config(unwidened),
        dtype=dtype,
        use_safetensors=True,
        local_files_only=Path(where).is_dir(),
        trust_remote_code=spec.trust_remote_code,
    )


def _random(spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> Any:
    """Weights as the model initialises them, from the spec's seed: for timing, never acceptance."""
    torch.manual_seed(spec.seed)
    with device:
        return AutoModelForCausalLM.from_config(load_config(spec), dtype=dtype)


def _refuse_sliding_windows(spec: ModelSpec, config: Any) -> None:
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or getattr(config, "sliding_window", None):
        raise ValueError(
            f"model {spec.name} has layers of kind {', '.join(sorted(kinds))} and a sliding window of "
            f"{getattr(config, 'sliding_window', None)}; the transformers engine keeps full attention "
            "only: override sliding_window with null if the context is shorter"
        )


def num_experts_of(model: nn.Module) -> int:
    """Routed experts per layer; 0 for a dense model."""
    modules = experts_path.experts_modules(model)
    return int(modules[0].num_experts) if modules else 0
