"""Who proposes the draft tokens: a second model, or the sequence's own past."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from moesd_dist.engines.transformers.acceptance import Drafts, draw
from moesd_dist.engines.transformers.forward import RaggedModel
from moesd_dist.engines.transformers.ragged_cache import RaggedCache
from moesd_dist.engines.transformers.sequences import Sequences


class Drafter(Protocol):
    def propose(self, sequences: Sequences, gamma: int) -> Drafts: ...


class NoDrafter:
    """The baseline: nothing is proposed, so a round is one decoding step."""

    def propose(self, sequences: Sequences, gamma: int) -> Drafts:
        rows = len(sequences.lengths)
        tokens = sequences.tokens.new_zeros(rows, 0)
        return Drafts(tokens=tokens, proposed=tokens.new_zeros(rows))


class ModelDrafter:
    """A second model decodes gamma tokens in gamma forwards.

    The first forward takes the last *two* tokens of each row. After a round in which every draft
    was accepted, the draft model has not seen the last of them; after any other it has, and writes
    the same keys again. So all rows share one shape, and no extra forward is spent to catch up.
    """

    def __init__(
        self,
        model: RaggedModel,
        cache: RaggedCache,
        temperature: float,
        generator: torch.Generator,
    ) -> None:
        self.model, self.cache = model, cache
        self.temperature, self.generator = temperature, generator

    def propose(self, sequences: Sequences, gamma: int) -> Drafts:
        inputs = sequences.last(2)
        starts, longest = sequences.lengths - 2, sequences.longest - 2
        tokens, probabilities = [], []
        for _ in range(gamma):
            logits = self.model.forward(self.cache, inputs, starts, longest=longest)
            token, chances = self._choose(logits[:, -1])
            tokens.append(token)
            probabilities.append(chances)
            starts, longest = starts + inputs.shape[1], longest + inputs.shape[1]
            inputs = token[:, None]
        proposed = torch.full_like(sequences.lengths, gamma)
        drawn = torch.stack(probabilities, 1) if self.temperature > 0 else None  # type: ignore[arg-type]
        return Drafts(tokens=torch.stack(tokens, 1), proposed=proposed, probabilities=drawn)

    def _choose(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.temperature == 0:
            return logits.float().argmax(-1), None
        chances = torch.softmax(logits.float() / self.temperature, -1)
        return draw(chances, self.generator), chances


class AlwaysDrafter:
    """Proposes at every position, for synthetic acceptance, which needs no real match.

    Where the drafter had nothing, random tokens stand in: equal padding would be routed to equal
    experts, and verification would look cheaper than it is.
    """

    def __init__(self, drafter: Drafter, vocab_size: int, generator: torch.Generator) -> None:
        self.drafter, self.vocab_size, self.generator = drafter, vocab_size, generator

    def propose(self, sequences: Sequences, gamma: int) -> Drafts:
        drafts = self.drafter.propose(sequences, gamma)
        tokens, device = drafts.tokens, drafts.tokens.device
        random = torch.randint(
            self.vocab_size, tokens.shape, generator=self.generator, device=device
        )
        real = torch.arange(gamma, device=device) < drafts.proposed[:, None]
        return replace(
            drafts,
            tokens=torch.where(real, tokens, random),
            proposed=torch.full_like(drafts.proposed, gamma),
        )


class NgramDrafter:
    """Prompt lookup: what followed the last occurrence of the newest n tokens, longest n first.

    Rows without a match, or with too few tokens after it, are padded to gamma; padding is verified
    like the rest, as static shapes need, but is never accepted and does not count as drafted.
    """

    def __init__(self, smallest: int, largest: int) -> None:
        if not 1 <= smallest <= largest:
            raise ValueError(f"ngram_min {smallest} and ngram_max {largest}: need 1 <= min <= max")
        self.sizes = range(largest, smallest - 1, -1)

    def propose(self, sequences: Sequences, gamma: int) -> Drafts:
        history, lengths = sequences.tokens, sequences.lengths
        found = torch.full_like(lengths, -1)  # where the continuation starts; -1: no match yet
        for size in self.sizes:
            found = torch.where(found < 0, _last_match(history, lengths, sequences, size), found)
        places = found[:, None] + torch.arange(gamma, device=history.device)
        usable = (found[:, None] >= 0) & (places < lengths[:, None])
        tokens = history.gather(1, places.clamp(0, history.shape[1] - 1)).masked_fill(~usable, 0)
        return Drafts(tokens=tokens, proposed=usable.sum(1))


def _last_match(history: Tensor, lengths: Tensor, sequences: Sequences, size: int) -> Tensor:
    """Index after the latest earlier occurrence of each row's newest `size` tokens, or -1; [B]."""
    windows = history.unfold(1, size, 1)  # [B, starts, size]
    same = (windows == sequences.last(size)[:, None]).all(-1)
    after = torch.arange(windows.shape[1], device=history.device) + size
    earlier = same & (after < lengths[:, None]) & (lengths[:, None] > size)
    return torch.where(earlier, after, -1).amax(1)
