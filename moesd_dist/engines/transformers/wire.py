"""What travels between ranks: a token with the experts it wants there, as one row of bytes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NOT_HERE = -1  # a choice of the token that another rank serves


@dataclass(frozen=True, slots=True)
class WireFormat:
    """A row is [hidden | top_k ids int32 | top_k weights float32]: one message instead of three."""

    width: int
    top_k: int
    dtype: torch.dtype

    @property
    def hidden_bytes(self) -> int:
        return self.width * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        return self.hidden_bytes + 8 * self.top_k

    def pack(self, hidden: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """uint8 [rows, row_bytes] of hidden [rows, width] and ids and weights [rows, top_k]."""
        parts = (hidden, ids.to(torch.int32), weights.to(torch.float32))
        return torch.cat([part.contiguous().view(torch.uint8) for part in parts], 1)

    def unpack(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden, ids int32 and weights float32, as `pack` took them."""
        sizes = [self.hidden_bytes, 4 * self.top_k, 4 * self.top_k]
        # A single row is contiguous as it is, and its parts may start where no int32 can.
        parts = (part.clone(memory_format=torch.contiguous_format) for part in rows.split(sizes, 1))
        hidden, ids, weights = parts
        return hidden.view(self.dtype), ids.view(torch.int32), weights.view(torch.float32)
