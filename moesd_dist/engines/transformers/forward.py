"""One forward of a causal model over ragged rows: tokens in, logits out, cache kept."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from moesd_dist.engines.transformers.attention import visible_mask
from moesd_dist.engines.transformers.ragged_cache import RaggedCache


class RaggedModel:
    """A model, its cache, and which sequence stands where; stateless otherwise."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.device: torch.device = next(model.parameters()).device
        self.dtype: torch.dtype = next(model.parameters()).dtype
        self.num_layers: int = model.config.num_hidden_layers
        self.vocab_size: int = model.config.vocab_size

    def new_cache(self, *, rows: int, capacity: int) -> RaggedCache:
        return RaggedCache(self.num_layers, rows=rows, capacity=capacity)

    @torch.inference_mode()
    def forward(
        self, cache: RaggedCache, tokens: Tensor, starts: Tensor, *, longest: int
    ) -> Tensor:
        """Logits [rows, new, vocabulary] of the new tokens [rows, new].

        `starts` [rows] is how many tokens of each row the cache holds already, `longest` an upper
        bound of them: known to the caller without asking the device.
        """
        # Logits for every new token: a slice of them would leave the head a strided input, for
        # which torch copies the head's weights once a row.
        inputs = self._inputs(cache, tokens, starts, longest, slice(0, cache.rows))
        return cast(Tensor, self.model(**inputs).logits)

    @torch.inference_mode()
    def prefill(self, cache: RaggedCache, tokens: Tensor, rows: slice) -> None:
        """Fills empty cache rows with the keys of right-padded prompts [rows, tokens]; no logits."""
        starts = torch.zeros(len(tokens), dtype=torch.int64, device=self.device)
        self.model.base_model(**self._inputs(cache, tokens, starts, 0, rows))

    def _inputs(
        self, cache: RaggedCache, tokens: Tensor, starts: Tensor, longest: int, rows: slice
    ) -> dict[str, Any]:
        new = tokens.shape[1]
        length = min(longest + new, cache.capacity)
        positions = starts[:, None] + torch.arange(new, device=self.device)
        cache.aim(rows, positions, length)
        return {
            "input_ids": tokens,
            "position_ids": positions,
            "attention_mask": visible_mask(positions, length, self.dtype),
            "past_key_values": cache,
            "use_cache": True,
        }
