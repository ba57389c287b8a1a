"""Random weights that depend on the seed and on names only, so that every layout has the same ones."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from moesd_dist.engines.transformers import experts_path
from moesd_dist.engines.transformers.local_experts import ExpertShare, room_for
from moesd_dist.theory.expert_parallel.placement import EMPTY


def random_model(
    config: Any, dtype: torch.dtype, device: torch.device, *, seed: int, share: ExpertShare | None
) -> Any:
    """Weights as the model initialises them: for timing, never acceptance.

    Each module draws under a seed of its own, made of `seed` and its name, and each expert under
    one of its module and its logical number. The same seed gives other numbers on another kind of
    device.
    """
    with torch.device("meta"), room_for(share):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.to_empty(device=device)
    model.tie_weights()  # emptying took tied weights apart
    cuda = [device] if device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=cuda):
        _fill(model, seed, share)
    return model


def _fill(model: Any, seed: int, share: ExpertShare | None) -> None:
    experts = set(experts_path.experts_modules(model))
    filled: set[int] = set()
    for name, module, owner in _children_first(model, "", model):
        own = {id(p) for p in module.parameters(recurse=False)}
        if own and own <= filled:  # tied to a module that came before
            continue
        filled |= own
        if module in experts:
            present = share.experts_of(name) if share else list(range(module.num_experts))
            _fill_experts(module, name, present, owner, seed)
        else:
            torch.manual_seed(seed_of(seed, name))
            owner._init_weights(module)


def _children_first(module: Any, name: str, owner: Any) -> Iterator[tuple[str, Any, Any]]:
    """Names and modules in transformers' order, with the model whose `_init_weights` is theirs."""
    if isinstance(module, PreTrainedModel):
        owner = module
    for child_name, child in module.named_children():
        yield from _children_first(child, f"{name}.{child_name}".lstrip("."), owner)
    yield name, module, owner


def _fill_experts(module: Any, name: str, present: list[int], owner: Any, seed: int) -> None:
    """One expert at a time, by the model's own rule; padding is zero."""
    for slot, expert in enumerate(present):
        # Shares everything with the module but the parameters, which are the rows of one slot.
        single = copy.copy(module)
        single._parameters = {
            key: nn.Parameter(weight[slot : slot + 1], requires_grad=False)
            for key, weight in module.named_parameters(recurse=False)
        }
        if expert == EMPTY:
            for weight in single.parameters(recurse=False):
                weight.zero_()
            continue
        torch.manual_seed(seed_of(seed, name, expert))
        owner._init_weights(single)


def seed_of(seed: int, *names: str | int) -> int:
    """63 bits that differ wherever a name does."""
    text = "\0".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
