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
from moesd_dist.engines.transformers.sharing import Sharing


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round did, per row, and how long its phases took."""

    draft_s: float
    target_s: float
    reject_s: float
    accepted: list[int]
    proposed: list[int]
    context: float  # mean tokens in the cache before the round
    slowest_s: float = 0.0  # of all ranks, which meet after every round; 0: this rank's own

    @property
    def seconds(self) -> float:
        return self.slowest_s or self.draft_s + self.target_s + self.reject_s

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
        sharing: Sharing | None = None,
    ) -> None:
        self.target, self.cache, self.drafter, self.rule = target, cache, drafter, rule
        self.clock, self.recorder, self.sharing = clock, recorder, sharing

    @torch.inference_mode()
    def run(self, sequences: Sequences, gamma: int) -> Round:
        """Advances every row by between 1 and gamma + 1 tokens.

        Without a row, a rank only lends its experts to the other ranks' forwards.
        """
        if not len(sequences.lengths):
            return self._idle(gamma)
        before = sequences.lengths
        self.clock.start()
        drafts = self.drafter.propose(sequences, gamma)
        self._meet(gamma)
        self.clock.lap()
        self._record(tokens=len(before) * (gamma + 1))
        logits = self.target.forward(
            self.cache,
            torch.cat([sequences.last(1), drafts.tokens], 1),
            sequences.lengths - 1,
            longest=sequences.longest - 1,
        )
        self._stop_recording()
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

    def _meet(self, gamma: int) -> None:
        """The slowest rank's drafts are awaited before verification: they are no part of its time."""
        if gamma and self.sharing is not None:
            self.sharing.barrier()

    def _idle(self, gamma: int) -> Round:
        self.clock.start()
        self._meet(gamma)
        self.clock.lap()
        self._record(tokens=0)
        assert self.sharing is not None  # alone, a batch has rows
        self.sharing.idle()
        self._stop_recording()
        self.clock.lap()
        self.clock.lap()
        draft_s, target_s, reject_s = self.clock.seconds()
        return Round(
            draft_s=draft_s,
            target_s=target_s,
            reject_s=reject_s,
            accepted=[],
            proposed=[],
            context=0.0,
        )

    def _record(self, *, tokens: int) -> None:
        self.recorder.recording = self.recorder.enabled
        if self.sharing is not None:
            self.sharing.traces.recording = self.recorder.enabled
            self.sharing.traces.gate_tokens += tokens * self.recorder.enabled

    def _stop_recording(self) -> None:
        self.recorder.recording = False
        if self.sharing is not None:
            self.sharing.traces.recording = False
