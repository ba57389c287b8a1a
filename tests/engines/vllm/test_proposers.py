"""Drafts of a chosen quality: an oracle is accepted at its alpha, a fixed proposer costs nothing."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from moesd_dist.engines.vllm.proposers import FixedProposer, OracleProposer

VOCABULARY = 50
GAMMA = 4
PROMPT = [7, 8, 9]


def config(alpha: float = 0.8, seed: int = 0, gamma: int = GAMMA) -> Any:
    """As much of vLLM's configuration as a proposer reads."""
    return SimpleNamespace(
        speculative_config=SimpleNamespace(num_speculative_tokens=gamma),
        model_config=SimpleNamespace(get_vocab_size=lambda: VOCABULARY, seed=seed),
        additional_config={"moesd_alpha": alpha},
    )


def written(count: int, seed: int = 0) -> list[int]:
    return PROMPT + [random.Random(seed).randrange(VOCABULARY) for _ in range(count)]


def oracle(*references: list[int], **settings: Any) -> OracleProposer:
    made = OracleProposer(config(**settings))
    made.set_references(references)
    return made


def verify(oracle: OracleProposer, reference: list[int], gamma: int = GAMMA) -> list[int]:
    """Drafts accepted in each round by a target that writes the reference, from prompt to end."""
    place, accepted = len(PROMPT), []
    while place + gamma < len(reference):
        drafts = oracle.draft(np.asarray(reference[:place]))
        truth = reference[place : place + gamma]
        agreed = [draft == own for draft, own in zip(drafts, truth, strict=True)]
        accepted.append(agreed.index(False) if False in agreed else gamma)
        place += accepted[-1] + 1
    return accepted


@pytest.mark.parametrize(
    ("alpha", "each"),
    [pytest.param(1.0, GAMMA, id="never spoilt"), pytest.param(0.0, 0, id="always spoilt")],
)
def test_at_the_limits_every_draft_or_none_is_accepted(alpha, each):
    reference = written(2000)
    assert set(verify(oracle(reference, alpha=alpha), reference)) == {each}


@pytest.mark.parametrize("alpha", [0.3, 0.8, 0.95])
def test_acceptance_by_position_falls_off_with_the_powers_of_alpha(alpha):
    reference = written(12_000)
    accepted = verify(oracle(reference, alpha=alpha), reference)
    rounds = len(accepted)
    for position in range(GAMMA):
        wanted = alpha ** (position + 1)
        found = sum(count > position for count in accepted) / rounds
        assert found == pytest.approx(wanted, abs=4 * (wanted * (1 - wanted) / rounds) ** 0.5)


def test_a_spoilt_token_is_always_another_one_and_may_be_any_other():
    spoiler = oracle(alpha=0.0)
    found = [spoiler._other(5) for _ in range(5000)]
    assert set(found) == set(range(VOCABULARY)) - {5}


def test_the_same_seed_spoils_the_same_tokens():
    reference = written(500)
    first, again, other = (verify(oracle(reference, seed=s), reference) for s in (1, 1, 2))
    assert first == again != other


def test_of_several_references_the_one_that_agrees_is_replayed():
    """Prompts are known apart by any of their tokens, not by the first two alone."""
    references = [[*PROMPT[:2], seed, *written(30, seed)] for seed in range(8)]
    replayed = oracle(*references, alpha=1.0)
    for reference in references:
        assert set(verify(replayed, reference)) == {GAMMA}
    assert replayed.counts["off_reference"] == replayed.counts["beyond_reference"] == 0


def test_a_sequence_that_left_its_reference_is_counted_and_drafted_for_all_the_same():
    reference = written(20)
    strayed = [*reference[:8], (reference[8] + 1) % VOCABULARY]
    found = oracle(reference, alpha=1.0)
    assert found.draft(np.asarray(strayed)) == reference[9:13]
    assert found.counts == {"drafts": 1, "off_reference": 1, "beyond_reference": 0}


@pytest.mark.parametrize(
    ("sequence", "known"),
    [
        pytest.param(written(18), 2, id="the reference ends within the drafts"),
        pytest.param(written(20), 0, id="the reference has ended"),
        pytest.param([1, 2, 3], 0, id="a sequence that no reference begins like"),
    ],
)
def test_beyond_the_reference_drafts_are_random_and_counted(sequence, known):
    reference = written(20)
    found = oracle(reference, alpha=1.0)
    drafts = found.draft(np.asarray(sequence))
    assert len(drafts) == GAMMA
    assert drafts[:known] == reference[len(sequence) :][:known]
    assert (found.counts["beyond_reference"], found.counts["off_reference"]) == (1, 0)


def test_new_references_replace_the_old_ones():
    found = oracle(written(20, seed=1), alpha=1.0)
    found.set_references([written(20, seed=2)])
    assert found.draft(np.asarray(PROMPT)) == written(20, seed=2)[3:7]


@pytest.mark.parametrize("gamma", [1, 3, 7])
def test_a_fixed_proposer_always_gives_gamma_tokens_of_the_vocabulary(gamma):
    fixed = FixedProposer(config(gamma=gamma))
    drafts = [fixed.draft(np.asarray(PROMPT)) for _ in range(1000)]
    assert {len(draft) for draft in drafts} == {gamma}
    assert {token for draft in drafts for token in draft} == set(range(VOCABULARY))


def test_rows_that_sampled_nothing_get_no_drafts_and_others_see_their_own_tokens():
    reference = written(20)
    tokens = np.zeros((3, 64), dtype=np.int64)
    tokens[0, :5], tokens[2, :9] = reference[:5], reference[:9]
    found = oracle(reference, alpha=1.0).propose([[1], [], [2]], np.array([5, 0, 9]), tokens)
    assert found == [reference[5:9], [], reference[9:13]]
