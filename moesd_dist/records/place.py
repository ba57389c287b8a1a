"""Which of several data-parallel ranks an engine is, and where they meet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPlace:
    """A rank of an engine over `size` data-parallel ranks; rank 0 listens at the address."""

    rank: int = 0
    size: int = 1
    address: str = ""
    port: int = 0

    def share(self, batch_size: int) -> int:
        """How many of a batch's sequences this rank has; the first ranks take the odd ones."""
        return batch_size // self.size + (self.rank < batch_size % self.size)
