"""Greedy speculative decoding writes what the target alone would write, token for token."""

from __future__ import annotations

import random

import pytest
from transformers import AttentionInterface  # noqa: F401  (importable before any model loads)

OUTPUT = 24
FAMILIES = [
    "tiny_qwen2_moe",
    "tiny_qwen3_moe",
    "tiny_mixtral",
    "tiny_olmoe",
    "tiny_deepseek_v2",
    "tiny_deepseek_v3",
    "tiny_dense",
    "tiny_opt",
]


@pytest.fixture(scope="module")
def pairs(tiny, kit):
    """Target with our experts path, noisy draft, prompts of mixed lengths, and the truth."""
    made = {}

    def pair(name):
        if name not in made:
            plain = tiny(name)
            rng = random.Random(name)
            vocabulary = plain.config.vocab_size
            prompts = [[rng.randrange(3, vocabulary) for _ in range(n)] for n in (5, 17, 2, 11, 8)]
            prompts.append(prompts[0] * 3)  # repeats itself: n-gram lookup finds matches
            plain.config._attn_implementation = "sdpa"
            truth = kit.generate(plain, prompts, OUTPUT)
            plain.config._attn_implementation = "moesd_ragged"
            draft = kit.installed(kit.noisy_copy(plain, 0.2))
            made[name] = kit.decoding(kit.installed(plain), draft), prompts, truth
        return made[name]

    return pair


@pytest.mark.parametrize("name", FAMILIES)
def test_gamma_zero_is_plain_decoding(pairs, name):
    decoding, prompts, truth = pairs(name)
    assert decoding.run(prompts, gamma=0, output=OUTPUT) == truth


@pytest.mark.parametrize("gamma", range(1, 8))
@pytest.mark.parametrize("name", FAMILIES)
def test_a_draft_model_changes_no_token(pairs, name, gamma):
    decoding, prompts, truth = pairs(name)
    decoding.accepted = decoding.rounds = 0
    assert decoding.run(prompts, gamma=gamma, output=OUTPUT) == truth
    # Both branches of the rule must have been taken, or equality would say little.
    assert 0 < decoding.accepted < decoding.rounds * gamma


@pytest.mark.parametrize("gamma", range(1, 8))
@pytest.mark.parametrize("name", FAMILIES)
def test_ngram_drafts_change_no_token(pairs, name, gamma):
    decoding, prompts, truth = pairs(name)
    assert decoding.run(prompts, gamma=gamma, output=OUTPUT, ngram=True) == truth


def test_a_draft_equal_to_the_target_is_always_accepted(tiny, kit):
    model = kit.installed(tiny("tiny_qwen3_moe"))
    decoding = kit.decoding(model, model)
    decoding.run([[5, 6, 7], [8, 9, 10, 11]], gamma=3, output=OUTPUT)
    assert decoding.accepted == decoding.rounds * 3
