"""Batches that stay full or run empty, with every sequence still writing its own text."""

from __future__ import annotations

import random

import pytest
import torch

from moesd_dist.engines.transformers.acceptance import greedy
from moesd_dist.engines.transformers.clocks import CpuClock
from moesd_dist.engines.transformers.drafts import ModelDrafter
from moesd_dist.engines.transformers.prefill import PrefilledPrompts
from moesd_dist.engines.transformers.rounds import Round, RoundRunner
from moesd_dist.engines.transformers.window import (
    Batch,
    accepted_per_position,
    full_batch,
    until_empty,
)

OUTPUT, GAMMA = 10, 3
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scene(tiny, kit):
    """A pool of prompts with their true continuations, and a factory of running batches."""
    plain = tiny("tiny_olmoe")
    rng = random.Random(1)
    prompts = [[rng.randrange(3, 100) for _ in range(rng.randint(3, 9))] for _ in range(7)]
    plain.config._attn_implementation = "sdpa"
    truth = kit.generate(plain, prompts, OUTPUT)
    plain.config._attn_implementation = "moesd_ragged"
    draft = kit.installed(kit.noisy_copy(plain, 0.1))
    target = kit.installed(plain)
    pool = PrefilledPrompts(prompts, [target, draft])

    def start(rows):
        caches = [m.new_cache(rows=rows, capacity=40) for m in (target, draft)]
        drafter = ModelDrafter(draft, caches[1], 0.0, torch.Generator())
        runner = RoundRunner(target, caches[0], drafter, greedy, CpuClock(), target.recorder)
        return runner, Batch(pool, caches, CPU)

    return prompts, truth, start


def written(batch, row):
    start = int(batch.sequences.prompt_lengths[row])
    return batch.sequences.tokens[row, start : int(batch.sequences.lengths[row])].tolist()


def test_a_replaced_sequence_continues_its_own_prompt(scene):
    prompts, truth, start = scene
    runner, batch = start(2)
    seen = set()
    for _ in range(30):
        runner.run(batch.sequences, GAMMA)
        for row in range(2):
            prompt = batch.sequences.tokens[row, : int(batch.sequences.prompt_lengths[row])]
            index = prompts.index(prompt.tolist())
            text = written(batch, row)
            assert text[:OUTPUT] == truth[index][: len(text)]
            seen.add(index)
        batch.replace_finished(OUTPUT)
    assert len(seen) > 2


def test_the_batch_stays_full_and_the_pool_starts_over(scene):
    _, _, start = scene
    runner, batch = start(2)
    rounds = full_batch(runner, batch, gamma=GAMMA, output_tokens=OUTPUT, window_tokens=150)
    assert all(len(one.accepted) == 2 for one in rounds)
    assert batch.taken > 7
    assert sum(one.tokens for one in rounds) >= 150 > sum(one.tokens for one in rounds[:-1])


def test_dropping_finished_sequences_leaves_the_others_unharmed(scene):
    prompts, truth, start = scene
    runner, batch = start(7)
    sizes = []
    while True:
        runner.run(batch.sequences, GAMMA)
        for row in range(len(batch.sequences.lengths)):
            prompt = batch.sequences.tokens[row, : int(batch.sequences.prompt_lengths[row])]
            text = written(batch, row)[:OUTPUT]
            assert text == truth[prompts.index(prompt.tolist())][: len(text)]
        sizes.append(len(batch.sequences.lengths))
        if not batch.drop_finished(OUTPUT):
            break
    assert len(set(sizes)) > 1  # it did shrink on the way


def test_until_empty_counts_the_output_and_nothing_beyond(scene):
    _, _, start = scene
    runner, batch = start(5)
    seconds, tokens = until_empty(runner, batch, gamma=GAMMA, output_tokens=OUTPUT)
    assert tokens == 5 * OUTPUT
    assert seconds > 0


def test_per_position_counts_are_unconditional():
    one = Round(
        draft_s=0, target_s=1, reject_s=0, accepted=[0, 2, 3, 1], proposed=[3] * 4, context=1
    )
    assert accepted_per_position([one, one], 3) == (6, 4, 2)


def test_a_cache_that_is_too_short_says_so(tiny, kit):
    model = kit.installed(tiny("tiny_olmoe"))
    cache = model.new_cache(rows=1, capacity=3)
    with pytest.raises(ValueError, match="4 tokens exceed the cache's 3"):
        cache.aim(slice(0, 1), torch.zeros(1, 1, dtype=torch.int64), 4)


def test_a_prompt_of_one_token_is_refused(tiny, kit):
    with pytest.raises(ValueError, match="at least 2"):
        PrefilledPrompts([[5]], [kit.installed(tiny("tiny_olmoe"))])
