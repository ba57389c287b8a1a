"""Synthetic acceptance on a CPU, by the rule of the Triton kernels.

Symptom: `rejection_sample_method="synthetic"` dies of `AssertionError: Synthetic acceptance not
supported with CPU sampling`. Cause: the C++ kernels that stand in for Triton's were never given the
mode (vllm/utils/cpu_triton_utils.py). No upstream issue known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

GREEDY = "_rejection_greedy_sample_kernel_impl"
RANDOM = "_rejection_random_sample_kernel_impl"


class Candidates(NamedTuple):
    """Tokens a kernel may emit."""

    drafts: Tensor  # [sum of drafts]; below 0: padding, never accepted
    replacements: Tensor  # [sum of drafts], for the first one rejected
    bonus: Tensor  # [batch, 1], for rows without rejection


class Draws(NamedTuple):
    uniform: Tensor  # [sum of drafts], in [0, 1)
    rates: Tensor  # [gamma], P(position accepted given all before it were); the user's are not conditional


def accept(
    output: Tensor, ends: Tensor, mine: list[bool], candidates: Candidates, draws: Draws
) -> None:
    """Writes the rows of `output` [batch, gamma + 1] that are `mine`, in place.

    `ends` are running totals of drafts a row. What follows a rejection stays as it was.
    """
    start = 0
    for row, end in enumerate(ends.tolist()):
        if mine[row]:
            drafts = candidates.drafts[start:end]
            kept = (draws.uniform[start:end] < draws.rates[: len(drafts)]) & (drafts >= 0)
            accepted = int(kept.long().cumprod(0).sum())
            output[row, :accepted] = drafts[:accepted]
            rejected = accepted < len(drafts)
            last = candidates.replacements[start + accepted] if rejected else candidates.bonus[row]
            output[row, accepted] = last
        start = end


def greedy_rows(is_greedy: Tensor | None, rows: int) -> list[bool]:
    """None is vLLM's word for a batch that is greedy throughout."""
    return [True] * rows if is_greedy is None else [bool(flag) for flag in is_greedy.tolist()]


def apply() -> None:
    from vllm.utils import cpu_triton_utils

    setattr(cpu_triton_utils, GREEDY, _greedy(getattr(cpu_triton_utils, GREEDY)))
    setattr(cpu_triton_utils, RANDOM, _random(getattr(cpu_triton_utils, RANDOM)))


# vLLM passes arguments in the order of the Triton kernels' parameters; without synthetic
# acceptance the rates are None.


def _greedy(original: Callable[..., None]) -> Callable[..., None]:
    """What replaces a rejected draft is the target's own choice."""

    def kernel(*arguments: Any) -> None:
        output, ends, drafts, argmax, bonus, is_greedy, _, uniform, rates, _ = arguments
        if rates is None:
            original(*arguments)
            return
        mine = greedy_rows(is_greedy, len(ends))
        draws = Draws(uniform, rates)
        accept(output, ends, mine, Candidates(drafts, argmax, bonus), draws)

    return kernel


def _random(original: Callable[..., None]) -> Callable[..., None]:
    """What replaces a rejected draft is drawn from what the draft left of the target's distribution."""

    def kernel(*arguments: Any) -> None:
        output, ends, drafts, _, _, bonus, recovered, uniform, is_greedy, _, _, rates, *_ = (
            arguments
        )
        if rates is None:
            original(*arguments)
            return
        mine = [not greedy for greedy in greedy_rows(is_greedy, len(ends))]
        draws = Draws(uniform, rates)
        accept(output, ends, mine, Candidates(drafts, recovered, bonus), draws)

    return kernel
