"""At a temperature, speculative decoding draws from the target's own distribution."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from moesd_dist.engines.transformers import acceptance
from moesd_dist.engines.transformers.acceptance import Drafts, Verdict

VOCABULARY = 12
ROWS = 6000
PROMPT = [3, 1, 4, 1, 5, 3, 1, 4]  # "3 1 4" occurs twice, so n-gram lookup has something to say
TEMPERATURE = 1.0


@pytest.fixture(scope="module")
def small(kit):
    """A target and a draft over 12 tokens, sharp enough that the choice of rule matters."""
    from moesd_dist.engines.transformers.load import load_model

    spec = kit.spec_of("tiny_qwen3_moe", vocab_size=VOCABULARY)
    model = load_model(spec, torch.device("cpu"))
    model.lm_head.weight.data *= 12
    draft = kit.noisy_copy(model, 0.5)
    return model, kit.decoding(kit.installed(model), kit.installed(draft))


@pytest.fixture(scope="module")
def exact(small):
    """P(first, second, third new token) by enumeration, [12, 12, 12]."""
    model, _ = small
    pairs = torch.cartesian_prod(torch.arange(VOCABULARY), torch.arange(VOCABULARY))
    prompts = torch.tensor(PROMPT).expand(len(pairs), -1)
    model.config._attn_implementation = "sdpa"
    with torch.inference_mode():
        logits = model(input_ids=torch.cat([prompts, pairs], 1)).logits[:, -3:].double()
    model.config._attn_implementation = "moesd_ragged"
    chances = torch.softmax(logits / TEMPERATURE, -1).view(VOCABULARY, VOCABULARY, 3, VOCABULARY)
    first = chances[0, 0, 0][:, None, None]
    second = chances[:, 0, 1][:, :, None]
    return first * second * chances[:, :, 2]


def p_value(triples: list[list[int]], exact: torch.Tensor) -> float:
    """Chi-square of observed triples against the truth, rare cells pooled."""
    index = torch.tensor(triples) @ torch.tensor([VOCABULARY**2, VOCABULARY, 1])
    observed = torch.bincount(index, minlength=VOCABULARY**3).double()
    expected = exact.flatten() * len(triples)
    common = expected >= 5
    seen = [*observed[common].tolist(), float(observed[~common].sum())]
    wanted = [*expected[common].tolist(), float(expected[~common].sum())]
    return float(stats.chisquare(seen, wanted, sum_check=False).pvalue)


def rule(seed: int) -> acceptance.Rule:
    return acceptance.sampled(TEMPERATURE, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("gamma", [1, 2, 4])
@pytest.mark.parametrize("ngram", [False, True], ids=["draft model", "n-gram"])
def test_sd_cannot_be_told_from_sampling(small, exact, gamma, ngram):
    _, decoding = small
    decoding.accepted = decoding.rounds = 0
    triples = decoding.run(
        [PROMPT] * ROWS, gamma=gamma, output=3, rule=rule(10 + gamma), temperature=TEMPERATURE,
        ngram=ngram, seed=gamma + 100,
    )  # fmt: skip
    assert 0 < decoding.accepted < decoding.rounds * gamma
    assert p_value(triples, exact) > 1e-4


def test_plain_sampling_passes_the_same_test(small, exact):
    _, decoding = small
    triples = decoding.run([PROMPT] * ROWS, gamma=0, output=3, rule=rule(5))
    assert p_value(triples, exact) > 1e-4


def test_the_test_would_notice_a_rule_that_accepts_too_much(small, exact):
    _, decoding = small

    def careless(logits: torch.Tensor, drafts: Drafts) -> Verdict:
        verdict = rule(1)(logits, drafts)
        return Verdict(accepted=drafts.proposed, next_token=verdict.next_token)

    triples = decoding.run(
        [PROMPT] * ROWS, gamma=2, output=3, rule=careless, temperature=TEMPERATURE
    )
    assert p_value(triples, exact) < 1e-6


def test_the_test_would_notice_a_bonus_token_drawn_from_the_wrong_place(small, exact):
    _, decoding = small

    def no_residual(logits: torch.Tensor, drafts: Drafts) -> Verdict:
        verdict = rule(2)(logits, drafts)
        rows = torch.arange(len(verdict.accepted))
        chances = torch.softmax(logits[rows, verdict.accepted] / TEMPERATURE, -1)
        return Verdict(
            accepted=verdict.accepted, next_token=torch.multinomial(chances, 1).squeeze(-1)
        )

    triples = decoding.run(
        [PROMPT] * ROWS, gamma=2, output=3, rule=no_residual, temperature=TEMPERATURE
    )
    assert p_value(triples, exact) < 1e-6
