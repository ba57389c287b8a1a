"""Which draft tokens are kept, and which token follows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(slots=True, kw_only=True)
class Drafts:
    """Proposed tokens int64 [B, gamma]; only the first `proposed` [B] of a row were really proposed.

    `probabilities` float32 [B, gamma, vocabulary] is what they were drawn from; None means that each
    was the only choice (greedy drafting, n-gram lookup).
    """

    tokens: Tensor
    proposed: Tensor
    probabilities: Tensor | None = None


@dataclass(slots=True, kw_only=True)
class Verdict:
    """Accepted draft tokens [B] and the token after them [B]: corrected, or the bonus token."""

    accepted: Tensor
    next_token: Tensor


MAX_GAMMA = 64  # positions that synthetic rates are laid out for
Rule = Callable[[Tensor, Drafts], Verdict]


def greedy(logits: Tensor, drafts: Drafts) -> Verdict:
    """Keeps drafts while they equal the target's first choice; logits [B, gamma + 1, vocabulary]."""
    choices = logits.float().argmax(-1)  # torch takes five times as long over bfloat16 on a CPU
    accepted = _leading(choices[:, :-1] == drafts.tokens, drafts)
    return Verdict(accepted=accepted, next_token=_at(choices, accepted))


def sampled(temperature: float, generator: torch.Generator) -> Rule:
    """Rejection sampling that leaves the target's distribution unchanged (Leviathan et al. 2023)."""

    def rule(logits: Tensor, drafts: Drafts) -> Verdict:
        target = torch.softmax(logits.float() / temperature, -1)
        chosen = drafts.tokens.unsqueeze(-1)
        p = target[:, :-1].gather(-1, chosen).squeeze(-1)
        q = 1.0 if drafts.probabilities is None else drafts.probabilities.gather(-1, chosen)[..., 0]
        coins = torch.rand(p.shape, generator=generator, device=p.device)
        accepted = _leading(coins * q < p, drafts)
        following = _residual(target, drafts, accepted)
        return Verdict(
            accepted=accepted,
            next_token=draw(following, generator),
        )

    return rule


def draw(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """One token per row [B] of probabilities [B, vocabulary].

    By an exponential race: multinomial would check its input on the host and make a GPU wait.
    """
    times = torch.empty_like(probabilities).exponential_(generator=generator)
    return (probabilities / times).argmax(-1)


def synthetic(rates: tuple[float, ...], follow: Rule, generator: torch.Generator) -> Rule:
    """Accepts by coin at given conditional rates, whatever the logits say: for timing, never lossless.

    `follow` still does the real rule's work, so that its time is in the clock.
    """

    longest = [*rates, *[rates[-1]] * MAX_GAMMA]  # the last rate serves all later positions
    of_positions = torch.tensor(longest, device=generator.device)

    def rule(logits: Tensor, drafts: Drafts) -> Verdict:
        verdict = follow(logits, drafts)
        gamma = drafts.tokens.shape[1]
        wanted = of_positions[:gamma]
        coins = torch.rand(drafts.tokens.shape, generator=generator, device=logits.device)
        accepted = _leading(coins < wanted, drafts)
        return Verdict(accepted=accepted, next_token=verdict.next_token)

    return rule


def _leading(ok: Tensor, drafts: Drafts) -> Tensor:
    """How many positions hold from the left on, among those really proposed."""
    places = torch.arange(ok.shape[1], device=ok.device)
    return (ok & (places < drafts.proposed[:, None])).long().cumprod(1).sum(1)


def _residual(target: Tensor, drafts: Drafts, accepted: Tensor) -> Tensor:
    """Where the next token is drawn from: max(p - q, 0) after a rejection, p after none."""
    rows = torch.arange(len(accepted), device=accepted.device)
    p = target[rows, accepted]
    if drafts.tokens.shape[1] == 0:
        return p
    place = accepted.clamp(max=drafts.tokens.shape[1] - 1)
    if drafts.probabilities is None:
        q = torch.zeros_like(p).scatter_(1, drafts.tokens[rows, place].unsqueeze(1), 1.0)
    else:
        q = drafts.probabilities[rows, place]
    left = (p - q).clamp_(min=0.0)
    total = left.sum(-1, keepdim=True)
    # p == q up to rounding leaves nothing over; a rejection there has probability zero.
    rejected = (accepted < drafts.proposed).unsqueeze(-1) & (total > 0)
    return torch.where(rejected, left / total.clamp(min=1e-30), p)


def _at(matrix: Tensor, place: Tensor) -> Tensor:
    return matrix.gather(1, place.unsqueeze(1)).squeeze(1)
