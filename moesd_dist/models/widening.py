"""The plan that widens a Qwen3-MoE model without changing the function it computes.

A hidden vector h becomes (h, h, ..., h). Weights that read it are tiled along their columns and
divided by how often it repeats, weights that write it are tiled along their rows, and RMSNorm's
mean of squares stays what it was. Heads and expert widths are tiled the same way. So a model that
was trained small takes the memory and the time of a large one, and still writes sensible text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

from moesd_dist.models import families

FAMILY = "qwen3_moe"
LAYER = re.compile(r"^model\.layers\.\d+\.")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class WideningFactors:
    """How often each width repeats; powers of two, so that divided weights stay exact in bf16."""

    hidden: int = 1
    expert: int = 1
    heads: int = 1

    def __post_init__(self) -> None:
        for name in ("hidden", "expert", "heads"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                rule = f"widening factor {name} must be a power of two"
                raise ValueError(f"{rule}; got {value}; use one of 1, 2, 4, 8, ...")

    @property
    def are_one(self) -> bool:
        return self.hidden == self.expert == self.heads == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """How one tensor is widened; a leading expert axis is left alone.

    rows, columns: repeats of the last two axes (of a vector: `columns`).
    stacked: how many matrices share the rows; each is tiled on its own.
    divide_by: repeats of the width that the tensor reads.
    """

    rows: int = 1
    columns: int = 1
    stacked: int = 1
    divide_by: int = 1


class Tileable(Protocol):
    """What is asked of a tensor, as `torch.Tensor` does it."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def reshape(self, *sizes: int) -> Self: ...
    def repeat(self, *repeats: int) -> Self: ...
    def __truediv__(self, divisor: int, /) -> Self: ...


T = TypeVar("T", bound=Tileable)


def widen_config(config: Mapping[str, Any], factors: WideningFactors) -> dict[str, Any]:
    """The widened model's config; ValueError for families other than Qwen3-MoE."""
    if factors.are_one:
        return dict(config)
    _check_widenable(config)
    return {
        **config,
        "hidden_size": families.integer(config, "hidden_size") * factors.hidden,
        "moe_intermediate_size": families.expert_width(config) * factors.expert,
        "num_attention_heads": families.integer(config, "num_attention_heads") * factors.heads,
        "num_key_value_heads": families.kv_heads(config) * factors.heads,
        "head_dim": families.head_dim(config),
        "tie_word_embeddings": False,  # the head divides, the embedding does not
    }


def _check_widenable(config: Mapping[str, Any]) -> None:
    if config.get("model_type") != FAMILY:
        kind = config.get("model_type")
        raise ValueError(f"only {FAMILY} can be widened; got {kind!r}; set all factors to 1")
    moe, layers = families.num_moe_layers(config), families.num_layers(config)
    if moe != layers:
        rule = "widening needs experts in every layer"
        raise ValueError(f"{rule}; got {moe} of {layers}; set all factors to 1")
    if config.get("attention_bias"):
        raise ValueError("widening needs attention_bias false; got true; set all factors to 1")


def tiling_of(parameter_name: str, factors: WideningFactors) -> Tiling:
    """The tiling of one Qwen3-MoE parameter by its name; ValueError for a name it does not know."""
    tilings = _tilings(factors)
    name = LAYER.sub("", parameter_name)
    if name not in tilings:
        way_out = f"use the state dict of a {FAMILY} model with fused experts"
        raise ValueError(f"no tiling is known for parameter {parameter_name!r}; {way_out}")
    return tilings[name]


def _tilings(factors: WideningFactors) -> dict[str, Tiling]:
    """By name without its layer. Rows are what a weight writes, columns what it reads."""
    hidden, expert, heads = factors.hidden, factors.expert, factors.heads
    norm = Tiling(columns=hidden)
    head_norm = Tiling()  # one weight for all heads
    # Whole sets of heads repeat, so query head i still meets key head i // group size.
    to_heads = Tiling(rows=heads, columns=hidden, divide_by=hidden)
    gate_up = Tiling(rows=expert, columns=hidden, stacked=2, divide_by=hidden)
    return {
        EMBEDDING: Tiling(columns=hidden),
        "input_layernorm.weight": norm,
        "self_attn.q_proj.weight": to_heads,
        "self_attn.k_proj.weight": to_heads,
        "self_attn.v_proj.weight": to_heads,
        "self_attn.q_norm.weight": head_norm,
        "self_attn.k_norm.weight": head_norm,
        "self_attn.o_proj.weight": Tiling(rows=hidden, columns=heads, divide_by=heads),
        "post_attention_layernorm.weight": norm,
        "mlp.gate.weight": Tiling(columns=hidden, divide_by=hidden),
        "mlp.experts.gate_up_proj": gate_up,
        "mlp.experts.down_proj": Tiling(rows=hidden, columns=expert, divide_by=expert),
        "model.norm.weight": norm,
        HEAD: Tiling(columns=hidden, divide_by=hidden),
    }


def apply_tiling(tensor: T, tiling: Tiling) -> T:
    """The widened tensor; a new one even where nothing repeats."""
    scaled = tensor / tiling.divide_by  # before it grows
    if len(tensor.shape) == 1:
        return scaled.repeat(tiling.columns)
    *lead, rows, columns = tensor.shape
    apart = scaled.reshape(*lead, tiling.stacked, rows // tiling.stacked, columns)
    tiled = apart.repeat(*(1 for _ in lead), 1, tiling.rows, tiling.columns)
    return tiled.reshape(*lead, rows * tiling.rows, columns * tiling.columns)


def widen_state(state: Mapping[str, T], factors: WideningFactors) -> Iterator[tuple[str, T]]:
    """Names and widened tensors, one at a time; a head that was tied comes from the embedding."""
    for name, tensor in state.items():
        yield name, apply_tiling(tensor, tiling_of(name, factors))
    if HEAD not in state and EMBEDDING in state:
        yield HEAD, apply_tiling(state[EMBEDDING], tiling_of(HEAD, factors))
