"""The Hugging Face config of a ModelSpec as an object, and its model without any weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from moesd_dist.models.sources import finish_config, resolve_config
from moesd_dist.records import ModelSpec


def load_config(spec: ModelSpec) -> Any:
    """The config that the model runs with; asks the hub where the spec names one."""
    plain = resolve_config(spec)
    if plain is None:
        stored = AutoConfig.from_pretrained(spec.location, trust_remote_code=spec.trust_remote_code)
        plain = finish_config(stored.to_dict(), spec)
    return AutoConfig.for_model(plain.pop("model_type"), **plain)


def skeleton(config: Any) -> Any:
    """The model with shapes and no memory: everything on torch's meta device."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)
