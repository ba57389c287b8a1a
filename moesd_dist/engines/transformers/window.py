"""Timed windows over rounds: a batch that stays full, and a batch that runs out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch

from moesd_dist.engines.transformers.group import RankGroup
from moesd_dist.engines.transformers.prefill import PrefilledPrompts
from moesd_dist.engines.transformers.ragged_cache import RaggedCache
from moesd_dist.engines.transformers.rounds import Round, RoundRunner
from moesd_dist.engines.transformers.sequences import Sequences
from moesd_dist.engines.transformers.traces import Window
from moesd_dist.records import Repeat


class Batch:
    """Sequences with their caches, one per model, filled from a pool of prefilled prompts."""

    def __init__(
        self, pool: PrefilledPrompts, caches: list[RaggedCache], device: torch.device
    ) -> None:
        self.pool, self.caches, self.taken = pool, caches, caches[0].rows
        prompts = [pool.place(row, row, caches) for row in range(self.taken)]
        self.sequences = Sequences(prompts, caches[0].capacity, device)

    @torch.inference_mode()
    def replace_finished(self, output_tokens: int) -> None:
        """Starts the next prompt of the pool in every row that has written its output."""
        done = (self.sequences.written() >= output_tokens).nonzero().flatten().tolist()
        for row in done:
            self.sequences.start(row, self.pool.place(self.taken, row, self.caches))
            self.taken += 1
        self.sequences.sync()

    @torch.inference_mode()
    def drop_finished(self, output_tokens: int) -> int:
        """Takes finished rows out of the batch; returns how many are left."""
        alive = (self.sequences.written() < output_tokens).nonzero().flatten()
        if len(alive) < len(self.sequences.lengths):
            for cache in self.caches:
                cache.keep_rows(alive)
            self.sequences.keep(alive)
        self.sequences.sync()
        return len(alive)


def full_batch(
    runner: RoundRunner, batch: Batch, *, gamma: int, output_tokens: int, window_tokens: int
) -> list[Round]:
    """Rounds in which all sequences are active, until `window_tokens` have been written.

    Of all ranks together, where experts are shared. A finished sequence is replaced between rounds,
    outside the clock. The baseline finishes all at
    once and SD one by one, but both walk from prompt to prompt + output, so at like contexts.
    """
    rounds: list[Round] = []
    tokens = 0
    while tokens < window_tokens:
        rounds.append(runner.run(batch.sequences, gamma))
        batch.replace_finished(output_tokens)
        tokens += together(runner, rounds[-1].tokens)  # also where ranks meet for the next round
    return rounds


def slowest(rounds: list[Round], group: RankGroup) -> list[Round]:
    """Each round as long as its slowest rank, and each phase: the sum of maxima, not their maximum."""
    if group.size == 1:
        return rounds
    own = [[r.seconds, r.draft_s, r.target_s, r.reject_s] for r in rounds]
    most = torch.stack(group.gather(torch.tensor(own, dtype=torch.float64, device=group.device)))
    return [
        replace(one, slowest_s=whole, draft_s=draft, target_s=target, reject_s=reject)
        for one, (whole, draft, target, reject) in zip(rounds, most.amax(0).tolist(), strict=True)
    ]


def together(runner: RoundRunner, number: int) -> int:
    """Summed over the ranks that share experts: they end their windows after the same round."""
    return runner.sharing.total([number])[0] if runner.sharing else number


def until_empty(
    runner: RoundRunner, batch: Batch, *, gamma: int, output_tokens: int
) -> tuple[float, int]:
    """Seconds and tokens until the last straggler is done; finished sequences leave the batch.

    A rank that has none left goes on lending its experts to those that have.
    """
    count = len(batch.sequences.lengths)
    rounds: list[Round] = []
    while True:
        rounds.append(runner.run(batch.sequences, gamma))
        if not together(runner, batch.drop_finished(output_tokens)):
            break
    if runner.sharing is not None:
        rounds = slowest(rounds, runner.sharing.group)
    return sum(one.seconds for one in rounds), count * output_tokens


def accepted_per_position(rounds: list[Round], gamma: int) -> tuple[int, ...]:
    """How many rows accepted draft position 1..gamma, over all rounds."""
    counts = [0] * gamma
    for one in rounds:
        for accepted in one.accepted:
            for position in range(accepted):
                counts[position] += 1
    return tuple(counts)


def median_of(rounds: list[Round], phase: Callable[[Round], float]) -> float:
    return median(phase(one) for one in rounds)


def to_repeat(
    rounds: list[Round],
    *,
    gamma: int,
    routing: tuple[torch.Tensor, tuple[int, ...], int],
    foreign: float,
    pool: PrefilledPrompts,
    tail: tuple[float, int],
    window: Window | None = None,
) -> Repeat:
    load, seen, layer_forwards = routing
    if window is not None:  # a rank's own tokens do not say which experts the others' chose
        seen, layer_forwards = window.experts_seen, window.layer_forwards
    return Repeat(
        seconds=sum(r.seconds for r in rounds),
        rounds=len(rounds),
        tokens=sum(r.tokens for r in rounds),
        drafted=sum(sum(r.proposed) for r in rounds),
        accepted=sum(sum(r.accepted) for r in rounds),
        accepted_per_position=accepted_per_position(rounds, gamma),
        sequence_rounds=sum(len(r.accepted) for r in rounds),
        draft_s=sum(r.draft_s for r in rounds),
        target_s=sum(r.target_s for r in rounds),
        reject_s=sum(r.reject_s for r in rounds),
        tokens_per_forward=gamma + 1,
        median_target_s=median_of(rounds, lambda r: r.target_s),
        median_draft_s=median_of(rounds, lambda r: r.draft_s),
        experts_seen=seen,
        layer_forwards=layer_forwards,
        expert_load=tuple(tuple(row) for row in load.tolist()),
        mean_context=sum(r.context for r in rounds) / len(rounds),
        exchange=window.exchange if window else None,
        foreign_cpu=foreign,
        prefill_s=pool.seconds,
        prompts=len(pool.prompts),
        prompt_tokens=sum(map(len, pool.prompts)),
        end_to_end_s=tail[0],
        end_to_end_tokens=tail[1],
    )
