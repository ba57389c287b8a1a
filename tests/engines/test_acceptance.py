"""The acceptance rule on hand-made logits."""

from __future__ import annotations

import pytest
import torch

from moesd_dist.engines.transformers.acceptance import Drafts, greedy, synthetic


def logits_choosing(*tokens: int, vocabulary: int = 8) -> torch.Tensor:
    """Logits [1, len(tokens), vocabulary] whose first choices are the tokens."""
    return torch.nn.functional.one_hot(torch.tensor([tokens]), vocabulary).float()


@pytest.mark.parametrize(
    ("drafted", "proposed", "accepted", "following"),
    [
        pytest.param([1, 2, 3], 3, 3, 4, id="all accepted adds the bonus token"),
        pytest.param([1, 7, 3], 3, 1, 2, id="a miss stops there though the next one agrees"),
        pytest.param([7, 2, 3], 3, 0, 1, id="a miss at once still yields the target's token"),
        pytest.param([1, 2, 3], 1, 1, 2, id="padding is never accepted even if it is right"),
        pytest.param([1, 2, 3], 0, 0, 1, id="nothing proposed is plain decoding"),
    ],
)
def test_greedy_keeps_the_leading_agreement(drafted, proposed, accepted, following):
    drafts = Drafts(tokens=torch.tensor([drafted]), proposed=torch.tensor([proposed]))
    verdict = greedy(logits_choosing(1, 2, 3, 4), drafts)
    assert verdict.accepted.tolist() == [accepted]
    assert verdict.next_token.tolist() == [following]


def test_synthetic_rates_are_met_whatever_the_logits_say():
    rows, rates = 20_000, (0.9, 0.5, 0.2)
    drafts = Drafts(tokens=torch.zeros(rows, 3, dtype=torch.int64), proposed=torch.full((rows,), 3))
    rule = synthetic(rates, greedy, torch.Generator().manual_seed(0))
    accepted = rule(logits_choosing(1, 2, 3, 4).expand(rows, -1, -1), drafts).accepted
    reached = [float((accepted > place).float().mean()) for place in range(3)]
    assert reached == pytest.approx([0.9, 0.45, 0.09], abs=0.01)


def test_a_single_synthetic_rate_serves_all_positions():
    rows = 20_000
    drafts = Drafts(tokens=torch.zeros(rows, 2, dtype=torch.int64), proposed=torch.full((rows,), 2))
    rule = synthetic((0.8,), greedy, torch.Generator().manual_seed(1))
    accepted = rule(logits_choosing(1, 2, 3).expand(rows, -1, -1), drafts).accepted
    assert float(accepted.float().mean()) == pytest.approx(0.8 + 0.64, abs=0.02)
