"""The batch's tokens: what each sequence has been given and has written so far."""

from __future__ import annotations

import torch
from torch import Tensor


class Sequences:
    """Token histories int64 [B, capacity] with their lengths [B]; the last token is not in any cache yet.

    `longest` bounds the lengths from above and lives on the host, so that shapes never wait for the
    device.
    """

    def __init__(self, prompts: list[list[int]], capacity: int, device: torch.device) -> None:
        rows = len(prompts)
        self.tokens = torch.zeros(rows, capacity, dtype=torch.int64, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self.prompt_lengths = torch.zeros_like(self.lengths)
        self._upper = [0] * rows
        for row, prompt in enumerate(prompts):
            self.start(row, prompt)

    def start(self, row: int, prompt: list[int]) -> None:
        """Puts a fresh prompt in a row."""
        self.tokens[row, : len(prompt)] = torch.tensor(prompt, device=self.tokens.device)
        self.lengths[row] = self.prompt_lengths[row] = len(prompt)
        self._upper[row] = len(prompt)

    @property
    def longest(self) -> int:
        return max(self._upper, default=0)

    def last(self, count: int) -> Tensor:
        """The newest `count` tokens of every row, [B, count]; a shorter row repeats its first."""
        offsets = torch.arange(-count, 0, device=self.tokens.device)
        return self.tokens.gather(1, (self.lengths[:, None] + offsets).clamp_(min=0))

    def append(self, drafts: Tensor, accepted: Tensor, next_token: Tensor) -> None:
        """Commits each row's accepted drafts [B, gamma] and the token after them."""
        emitted = torch.cat([drafts, next_token[:, None]], 1)
        emitted.scatter_(1, accepted[:, None], next_token[:, None])
        places = self.lengths[:, None] + torch.arange(emitted.shape[1], device=emitted.device)
        self.tokens.scatter_(
            1, places, emitted
        )  # beyond a row's new length: overwritten next round
        self.lengths = self.lengths + accepted + 1
        self._upper = [upper + emitted.shape[1] for upper in self._upper]

    def sync(self) -> list[int]:
        """Exact lengths on the host: waits for the device, so outside the clock only."""
        self._upper = self.lengths.tolist()
        return self._upper

    def written(self) -> Tensor:
        """Tokens generated so far, [B]."""
        return self.lengths - self.prompt_lengths

    def keep(self, rows: Tensor) -> None:
        """Drops all other rows."""
        self.tokens, self.lengths = self.tokens[rows], self.lengths[rows]
        self.prompt_lengths = self.prompt_lengths[rows]
        self.sync()
