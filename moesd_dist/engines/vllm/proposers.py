"""Draft tokens without a draft model: acceptance chosen and really verified, or verification alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

SHORTEST = 2  # tokens by which a sequence is looked up; no workload has shorter prompts


class Proposer:
    """What vLLM asks of a `custom_class`; one list of drafts per sequence, empty where it sampled none."""

    def __init__(self, vllm_config: Any) -> None:
        self.gamma = int(vllm_config.speculative_config.num_speculative_tokens)
        self.vocab_size = int(vllm_config.model_config.get_vocab_size())
        self.random = random.Random(int(vllm_config.model_config.seed or 0))
        self.counts: dict[str, int] = {}

    def load_model(self, *_: Any, **__: Any) -> None:
        """There is none."""

    def propose(
        self,
        sampled_token_ids: Sequence[Sequence[int]],
        num_tokens_no_spec: Any,
        token_ids_cpu: Any,
        slot_mappings: Any = None,
    ) -> list[list[int]]:
        return [
            self.draft(token_ids_cpu[row, : int(num_tokens_no_spec[row])]) if sampled else []
            for row, sampled in enumerate(sampled_token_ids)
        ]

    def draft(self, sequence: Any) -> list[int]:
        raise NotImplementedError

    def any_token(self) -> int:
        return self.random.randrange(self.vocab_size)


class FixedProposer(Proposer):
    """Random tokens for nothing: what is left of a round is verification at gamma + 1 tokens.

    Random rather than equal: equal tokens would be routed to equal experts.
    """

    def draft(self, sequence: Any) -> list[int]:
        return [self.any_token() for _ in range(self.gamma)]


class OracleProposer(Proposer):
    """The reference continuation, each token spoilt with probability 1 - alpha.

    A spoilt token is another one, so the target rejects it where its own choice is the reference's.
    A sequence that has left its reference gets the reference's tokens all the same, and is counted.
    """

    def __init__(self, vllm_config: Any) -> None:
        super().__init__(vllm_config)
        self.alpha = float((vllm_config.additional_config or {})["moesd_alpha"])
        self._references: dict[tuple[int, ...], list[np.ndarray]] = {}
        self.counts = {"drafts": 0, "off_reference": 0, "beyond_reference": 0}

    def set_references(self, sequences: Sequence[Sequence[int]]) -> None:
        self._references = {}
        for sequence in sequences:
            known = np.asarray(sequence, dtype=np.int64)
            self._references.setdefault(tuple(known[:SHORTEST].tolist()), []).append(known)

    def draft(self, sequence: Any) -> list[int]:
        self.counts["drafts"] += 1
        reference = self._reference(sequence)
        wanted = [] if reference is None else reference[len(sequence) :][: self.gamma].tolist()
        if len(wanted) < self.gamma:
            self.counts["beyond_reference"] += 1
        drafts = [
            token if self.random.random() < self.alpha else self._other(token) for token in wanted
        ]
        return drafts + [self.any_token() for _ in range(self.gamma - len(drafts))]

    def _reference(self, sequence: Any) -> np.ndarray | None:
        """The one that agrees for longest: all of it, unless the sequence has left it."""
        known = self._references.get(tuple(sequence[:SHORTEST].tolist()), [])
        if not known:
            return None
        agreed = [_common(reference, sequence) for reference in known]
        best = max(range(len(known)), key=agreed.__getitem__)
        if agreed[best] < min(len(sequence), len(known[best])):
            self.counts["off_reference"] += 1
        return known[best]

    def _other(self, token: int) -> int:
        return (token + 1 + self.random.randrange(self.vocab_size - 1)) % self.vocab_size


def _common(reference: Any, sequence: Any) -> int:
    """Tokens with which both begin."""
    length = min(len(reference), len(sequence))
    differ = np.flatnonzero(reference[:length] != sequence[:length])
    return int(differ[0]) if len(differ) else length
