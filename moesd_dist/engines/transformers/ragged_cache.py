"""A KV cache in which every sequence has its own length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class RaggedCache(Cache):
    """Keys and values of `rows` sequences of up to `capacity` tokens; the caller says what goes where.

    Before each forward, `aim(rows, positions, length)` names the rows that take part and where their
    new tokens belong. Nothing is ever erased: a rejected token is overwritten by the next one at its
    position, and the mask hides whatever lies beyond a sequence's own length.
    """

    def __init__(self, num_layers: int, *, rows: int, capacity: int) -> None:
        self.rows, self.capacity = rows, capacity
        self.targets: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))
        self.length = 0
        self.active: slice | Tensor = slice(0, rows)
        super().__init__(layers=[RaggedLayer(self) for _ in range(num_layers)])

    def aim(self, rows: slice | Tensor, positions: Tensor, length: int) -> None:
        """Next forward: int64 positions [rows, new tokens]; attention sees the first `length` slots."""
        if length > self.capacity:
            raise ValueError(
                f"{length} tokens exceed the cache's {self.capacity}; raise its capacity"
            )
        index = torch.arange(self.rows, device=positions.device)[rows]
        self.targets = (index[:, None], positions)
        self.active, self.length = rows, length

    def copy_row(self, source: RaggedCache, source_row: int, row: int, length: int) -> None:
        """Takes over the first `length` tokens of another cache's row, as a prefill would leave them."""
        for mine, theirs in zip(self.layers, source.layers, strict=True):
            mine.copy_row(theirs, source_row, row, length)

    def keep_rows(self, rows: Tensor) -> None:
        """Drops all other rows, as a serving engine does with finished sequences."""
        for layer in self.layers:
            layer.keep_rows(rows)
        self.rows = len(rows)


class RaggedLayer(CacheLayerMixin):
    """One layer's keys and values, [rows, capacity, heads, width], made at the first update."""

    is_sliding = False
    is_compileable = False

    def __init__(self, cache: RaggedCache) -> None:
        super().__init__()
        self.cache = cache
        self.stored: tuple[Tensor, Tensor] | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        shape = (self.cache.rows, self.cache.capacity)
        made = [s.new_zeros(*shape, s.shape[1], s.shape[3]) for s in (key_states, value_states)]
        self.stored = (made[0], made[1])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes [rows, heads, new, width] at the aimed positions; returns all slots attention may see."""
        if self.stored is None:
            self.lazy_initialization(key_states, value_states)
        assert self.stored is not None
        seen = []
        for store, new in zip(self.stored, (key_states, value_states), strict=True):
            store[self.cache.targets] = new.transpose(1, 2)
            seen.append(store[self.cache.active, : self.cache.length].transpose(1, 2))
        return seen[0], seen[1]

    def copy_row(self, source: RaggedLayer, source_row: int, row: int, length: int) -> None:
        assert source.stored is not None
        if self.stored is None:
            self.lazy_initialization(*(s[:1].transpose(1, 2) for s in source.stored))
        assert self.stored is not None
        for mine, theirs in zip(self.stored, source.stored, strict=True):
            mine[row, :length] = theirs[source_row, :length]

    def keep_rows(self, rows: Tensor) -> None:
        if self.stored is not None:
            self.stored = (self.stored[0][rows], self.stored[1][rows])

    def get_seq_length(self, *args: Any) -> int:
        return 0  # positions are always given explicitly; there is no common length

    def get_max_length(self) -> int:
        return self.cache.capacity

    def get_max_cache_shape(self) -> int:  # its name before transformers 5.20
        return self.cache.capacity

    def get_mask_sizes(self, query_length: int, *args: Any) -> tuple[int, int]:
        return self.cache.length, 0
