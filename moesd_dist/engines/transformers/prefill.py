"""Prompts processed ahead of the clock, kept so that every gamma starts from the same state."""

from __future__ import annotations

import time

import torch

from moesd_dist.engines.transformers.forward import RaggedModel
from moesd_dist.engines.transformers.ragged_cache import RaggedCache
from moesd_dist.engines.transformers.sharing import Sharing

TOKENS_PER_FORWARD = 4096  # bounds the memory of one prefill forward


class PrefilledPrompts:
    """A pool of prompts whose keys are ready in a cache of each model.

    All tokens but the last are cached: the first round feeds the last one, exactly as every later
    round feeds the newest token, so no round is special.
    """

    def __init__(
        self,
        prompts: list[list[int]],
        models: list[RaggedModel],
        sharing: Sharing | None = None,
    ) -> None:
        short = min((len(prompt) for prompt in prompts), default=2)
        if short < 2:
            raise ValueError(f"a prompt has {short} tokens; decoding starts from at least 2")
        self.prompts = prompts
        self.seconds = 0.0
        self.caches = [self._prefill(m, sharing if m is models[0] else None) for m in models]

    def place(self, index: int, row: int, caches: list[RaggedCache]) -> list[int]:
        """Copies a prompt's keys into a row of each cache; wraps around the pool. Returns the prompt."""
        index %= len(self.prompts)
        prompt = self.prompts[index]
        for ready, cache in zip(self.caches, caches, strict=True):
            cache.copy_row(ready, index, row, len(prompt) - 1)
        return prompt

    def _prefill(self, model: RaggedModel, sharing: Sharing | None) -> RaggedCache:
        """A rank whose experts are shared runs as many forwards as the rank with most of them."""
        longest = max((len(prompt) for prompt in self.prompts), default=2) - 1
        cache = model.new_cache(rows=len(self.prompts), capacity=longest)
        step = max(1, TOKENS_PER_FORWARD // longest)
        began = time.perf_counter()
        starts = range(0, len(self.prompts), step)
        most = sharing.group.largest(len(starts)) if sharing else len(starts)
        for first in starts:
            self._forward(model, cache, first, self.prompts[first : first + step], longest)
        for _ in range(most - len(starts)):
            assert sharing is not None  # who is alone runs most of them
            sharing.idle()
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        self.seconds += time.perf_counter() - began
        return cache

    def _forward(
        self,
        model: RaggedModel,
        cache: RaggedCache,
        first: int,
        prompts: list[list[int]],
        width: int,
    ) -> None:
        """Right-padded: what padding writes lies beyond each row's length and is never seen."""
        padded = [prompt[:-1] + [0] * (width + 1 - len(prompt)) for prompt in prompts]
        tokens = torch.tensor(padded, device=model.device)
        model.prefill(cache, tokens, slice(first, first + len(prompts)))
