"""The round: draft, verify, reject, commit, each phase on the clock."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from moesd_dist.engines.transformers.acceptance import Rule
from moesd_dist.engines.transformers.clocks import Clock
from moesd_dist.engines.transformers.drafts import Drafter
from moesd_dist.engines.transformers.forward import RaggedModel
from moesd_dist.engines.transformers.ragged_cache import RaggedCache
from moesd_dist.engines.transformers.routing import RoutingRecorder
from moesd_dist.engines.transformers.sequences import Sequences


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round did, per row, and how long its phases took."""

    draft_s: float
    target_s: float
    reject_s: float
    accepted: list[int]
    proposed: list[int]
    context: float  # mean tokens in the cache before the round

    @property
    def seconds(self) -> float:
        return self.draft_s + self.target_s + self.reject_s

    @property
    def tokens(self) -> int:
        return sum(self.accepted) + len(self.accepted)


class RoundRunner:
    """Runs rounds of one target, one drafter and one acceptance rule; gamma 0 is plain decoding."""

    def __init__(
        self,
        target: RaggedModel,
        cache: RaggedCache,
        drafter: Drafter,
        rule: Rule,
        clock: Clock,
        recorder: RoutingRecorder,
    ) -> None:
        self.target, self.cache, self.drafter, self.rule = target, cache, drafter, rule
        self.clock, self.recorder = clock, recorder

    @torch.inference_mode()
    def run(self, sequences: Sequences, gamma: int) -> Round:
        """Advances every row by between 1 and gamma + 1 tokens."""
        before = sequences.lengths
        self.clock.start()
        drafts = self.drafter.propose(sequences, gamma)
        self.clock.lap()
        self.recorder.recording = self.recorder.enabled
        logits = self.target.forward(
            self.cache,
            torch.cat([sequences.last(1), drafts.tokens], 1),
            sequences.lengths - 1,
            longest=sequences.longest - 1,
        )
        self.recorder.recording = False
        self.clock.lap()
        verdict = self.rule(logits, drafts)
        sequences.append(drafts.tokens, verdict.accepted, verdict.next_token)
        self.clock.lap()
        draft_s, target_s, reject_s = self.clock.seconds()
        return Round(
            draft_s=draft_s,
            target_s=target_s,
            reject_s=reject_s,
            accepted=verdict.accepted.tolist(),
            proposed=drafts.proposed.tolist(),
            context=float((before - 1).float().mean()),
        )
