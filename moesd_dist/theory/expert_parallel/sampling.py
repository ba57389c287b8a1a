"""Simulated routing: which experts random tokens choose, uniformly or by popularity, with repeats."""

# A top-K without replacement by popularity is a race: expert e arrives after an exponential time of
# rate weight_e, the first K win (that is the Gumbel top-k of the logarithms of the weights).

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.experts import activation_ratio

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]

_BLOCK = 4_000_000  # race times held at once


def draw_choices(
    rng: np.random.Generator, weights: npt.ArrayLike, *, top_k: int, draws: int, tokens: int
) -> _Ints:
    """Expert ids [draw, token, top_k], distinct within a token, in no particular order.

    `weights` [expert] or [draw, expert]; equal ones are the uniform law.
    Raises ValueError if fewer than top_k weights are positive.
    """
    rates = np.atleast_2d(np.asarray(weights, dtype=np.float64))
    activation_ratio(rates.shape[1], top_k)
    if np.any(rates < 0.0) or np.any(np.count_nonzero(rates, axis=1) < top_k):
        raise ValueError(f"weights must be >= 0, and at least top_k {top_k} of them above 0")
    if np.all(rates == rates[0, 0]):
        return _uniform(rng, rates.shape[1], top_k, (draws, tokens))
    return _raced(rng, rates, top_k, (draws, tokens))


def expert_loads(
    rng: np.random.Generator,
    weights: npt.ArrayLike,
    *,
    top_k: int,
    sequences: int,
    draws: int,
    tokens_each: int = 1,
    fresh_share: float = 1.0,
) -> _Ints:
    """Tokens of each expert in simulated forwards, int64 [draw, expert]; arguments as in `forwards`."""
    experts = np.shape(np.atleast_2d(np.asarray(weights)))[1]
    chosen = forwards(
        rng,
        weights,
        top_k=top_k,
        sequences=sequences,
        draws=draws,
        tokens_each=tokens_each,
        fresh_share=fresh_share,
    )
    return np.concatenate([counted(block, experts) for block in chosen])


def forwards(
    rng: np.random.Generator,
    weights: npt.ArrayLike,
    *,
    top_k: int,
    sequences: int,
    draws: int,
    tokens_each: int = 1,
    fresh_share: float = 1.0,
) -> Iterator[_Ints]:
    """Choices of simulated forwards, block by block: int64 [some draws, token, top_k].

    Tokens of a sequence lie side by side; each further one repeats its predecessor's whole choice
    with probability 1 - fresh_share. `weights` as in `draw_choices`.
    """
    rates = np.atleast_2d(np.asarray(weights, dtype=np.float64))
    tokens = sequences * tokens_each
    block = max(1, _BLOCK // max(1, tokens * rates.shape[1]))
    for first in range(0, draws, block):
        count = min(block, draws - first)
        some = rates if len(rates) == 1 else rates[first : first + count]
        chosen = draw_choices(rng, some, top_k=top_k, draws=count, tokens=tokens)
        yield _repeating(rng, chosen, tokens_each, fresh_share) if fresh_share < 1.0 else chosen


def counted(chosen: _Ints, size: int) -> _Ints:
    """How often each of 0..size-1 stands in a draw, [draw, size]."""
    draws = len(chosen)
    flat = chosen.reshape(draws, -1) + size * np.arange(draws)[:, None]
    return np.bincount(flat.reshape(-1), minlength=draws * size).reshape(draws, size)


def _uniform(
    rng: np.random.Generator, num_experts: int, top_k: int, shape: tuple[int, int]
) -> _Ints:
    """Floyd's algorithm: each step draws one more expert, or takes the newest if it is there."""
    chosen = np.empty((*shape, top_k), dtype=np.int64)
    for place, newest in enumerate(range(num_experts - top_k, num_experts)):
        drawn = rng.integers(0, newest + 1, size=shape)
        there = (chosen[..., :place] == drawn[..., None]).any(axis=-1)
        chosen[..., place] = np.where(there, newest, drawn)
    return chosen


def _raced(rng: np.random.Generator, rates: _Floats, top_k: int, shape: tuple[int, int]) -> _Ints:
    times = rng.standard_exponential((*shape, rates.shape[1]), dtype=np.float32)
    with np.errstate(divide="ignore", over="ignore"):  # weight 0 never arrives
        times /= rates[:, None, :].astype(np.float32)
    return np.argpartition(times, top_k - 1, axis=-1)[..., :top_k]


def _repeating(
    rng: np.random.Generator, chosen: _Ints, tokens_each: int, fresh_share: float
) -> _Ints:
    """Tokens of a sequence lie side by side; a repeated one takes the last fresh choice."""
    draws, tokens, _ = chosen.shape
    fresh = rng.random((draws, tokens // tokens_each, tokens_each)) < fresh_share
    fresh[..., 0] = True
    place = np.arange(tokens).reshape(-1, tokens_each)
    source = np.maximum.accumulate(np.where(fresh, place, 0), axis=-1).reshape(draws, tokens)
    return np.take_along_axis(chosen, source[..., None], axis=1)
