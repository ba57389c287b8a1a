"""Masked attention over ragged rows, without copying keys for grouped queries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

ATTENTION = "moesd_ragged"
UNSUPPORTED = ("softcap", "s_aux", "position_bias", "sliding_window")  # would be left out silently


def ragged_attention(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Scaled dot product with the additive mask of `visible_mask`; [rows, new, heads, width]."""
    if unknown := [name for name in UNSUPPORTED if options.get(name) is not None]:
        raise ValueError(f"attention with {', '.join(unknown)} is not supported; use another model")
    rows, heads, new = query.shape[:3]
    groups = heads // key.shape[1]
    if groups > 1:  # queries of one key head side by side: torch's own enable_gqa is 2-4x slower
        query = query.reshape(rows, key.shape[1], groups * new, -1)
        attention_mask = attention_mask.repeat(1, 1, groups, 1)
    out = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=scaling
    )
    return out.reshape(rows, heads, new, -1).transpose(1, 2).contiguous(), None


def visible_mask(positions: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """Additive mask [rows, 1, new, length]: a token sees its own position and all before it."""
    slots = torch.arange(length, device=positions.device)
    hidden = slots[None, None, None, :] > positions[:, None, :, None]
    return torch.zeros(hidden.shape, dtype=dtype, device=positions.device).masked_fill_(
        hidden, torch.finfo(dtype).min
    )


def register() -> None:
    AttentionInterface.register(ATTENTION, ragged_attention)
