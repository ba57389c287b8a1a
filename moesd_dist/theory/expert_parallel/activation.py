"""How many experts the busiest of several ranks must read when tokens choose uniformly."""

# Two exact steps. The number n of distinct experts after t tokens is a Markov chain: of the top_k
# experts of one more token a hypergeometric number is new. Given n, the set is uniform among the
# n-subsets of the experts, so that with L_r experts on rank r
#     P(no rank has more than m | n) = [z^n] prod_r sum_{j <= m} C(L_r, j) z^j / C(E, n),
# a power of a polynomial whose coefficients are positive: nothing cancels. t counts the tokens of
# the whole batch, summed over the data-parallel ranks: every rank's tokens go to every rank.

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln  # type: ignore[import-untyped, unused-ignore]

from moesd_dist.theory.experts import activation_ratio, expected_activated_experts

MAX_EXPERTS = 1000  # 2^E must fit into a float

_Floats = npt.NDArray[np.float64]
_MISSED = 1e-10  # share of the experts that is still asleep when the table of tokens ends


def rank_sizes(num_experts: int, ranks: int) -> tuple[tuple[int, int], ...]:
    """(ranks, experts on each) as evenly as it goes, the larger ones first; at most two kinds.

    With more ranks than experts some hold none. Raises ValueError unless ranks >= 1.
    """
    if ranks < 1:
        raise ValueError(f"ranks must be at least 1, got {ranks}; one rank holds all experts")
    few, larger = divmod(num_experts, ranks)
    sizes = ((larger, few + 1), (ranks - larger, few))
    return tuple((count, size) for count, size in sizes if count)


@lru_cache(maxsize=4)
def distinct_law(num_experts: int, top_k: int) -> _Floats:
    """P(n distinct experts after t tokens), [t, n], from t = 0 until all but 1e-10 are awake.

    Raises ValueError if top_k lies outside 1..num_experts.
    """
    rho = activation_ratio(num_experts, top_k)
    last = 1 if rho == 1.0 else math.ceil(math.log(_MISSED) / math.log1p(-rho))
    fresh = np.arange(top_k + 1)[:, None]  # new experts of one more token
    awake = np.arange(num_experts + 1)
    step = np.exp(
        _log_choose(num_experts - awake, fresh)
        + _log_choose(awake, top_k - fresh)
        - _log_choose(np.array(num_experts), np.array(top_k))
    )
    law = np.zeros((last + 1, num_experts + 1))
    law[0, 0] = 1.0
    for before, after in pairwise(law):
        moved = before * step
        for new, flow in enumerate(moved):
            after[new:] += flow[: num_experts + 1 - new]
        after /= after.sum()  # rounding of the logarithms would add up over thousands of tokens
    return law


@lru_cache(maxsize=1024)
def busiest_given_distinct(num_experts: int, ranks: int) -> _Floats:
    """E[max over ranks of its activated experts | n distinct ones], [n] for n = 0..num_experts.

    Raises ValueError if ranks < 1 or there are more than 1000 experts.
    """
    if num_experts > MAX_EXPERTS:
        raise ValueError(f"num_experts {num_experts} exceeds {MAX_EXPERTS}: 2^E overflows a float")
    sizes = rank_sizes(num_experts, ranks)
    subsets = _choose(num_experts)
    largest = np.zeros(num_experts + 1)
    for limit in range(sizes[0][1]):  # E[max] = sum over m of P(max > m)
        within = np.ones(1)
        for count, size in sizes:
            within = np.convolve(within, _power(_choose(size)[: limit + 1], count))
        largest += 1.0
        largest[: len(within)] -= within / subsets[: len(within)]
    return largest


def expected_busiest_activated(
    num_experts: int, top_k: int, ranks: int, gate_tokens: npt.ArrayLike
) -> _Floats:
    """Expected experts of the rank that has most, in one layer and forward; gate_tokens' shape.

    `gate_tokens` (t) is summed over data-parallel ranks. Exact for whole tokens, interpolated
    between them. Experts lie as evenly as they can.
    Raises ValueError if gate_tokens is negative, ranks < 1 or top_k lies outside 1..num_experts.
    """
    tokens = np.asarray(gate_tokens, dtype=np.float64)
    distinct = np.asarray(expected_activated_experts(num_experts, top_k, tokens))
    return busiest_of_distinct(num_experts, top_k, ranks, distinct)


def busiest_of_distinct(
    num_experts: int, top_k: int, ranks: int, expected_distinct: _Floats
) -> _Floats:
    """The same where so many distinct experts are expected of the whole layer."""
    means, most = _busiest_by_tokens(num_experts, top_k, ranks)
    return np.asarray(np.interp(expected_distinct, means, most))


@lru_cache(maxsize=1024)
def _busiest_by_tokens(num_experts: int, top_k: int, ranks: int) -> tuple[_Floats, _Floats]:
    """Expected distinct experts, and those of the busiest rank, [t] for whole tokens; then all."""
    law = distinct_law(num_experts, top_k)
    means = np.asarray(expected_activated_experts(num_experts, top_k, np.arange(len(law))))
    most = law @ busiest_given_distinct(num_experts, ranks)
    largest = rank_sizes(num_experts, ranks)[0][1]
    return np.append(means, num_experts), np.append(np.minimum(most, largest), largest)


def _log_choose(total: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]) -> _Floats:
    """ln C(total, chosen), -inf where chosen lies outside 0..total; the arrays broadcast."""
    possible = (chosen >= 0) & (chosen <= total)
    part = np.where(possible, chosen, 0)
    found = gammaln(total + 1.0) - gammaln(part + 1.0) - gammaln(total - part + 1.0)
    return np.asarray(np.where(possible, found, -np.inf))


@lru_cache(maxsize=64)
def _choose(total: int) -> _Floats:
    """All binomial coefficients of one row, [total + 1], correctly rounded."""
    return np.array([float(math.comb(total, chosen)) for chosen in range(total + 1)])


def _power(polynomial: _Floats, exponent: int) -> _Floats:
    """Coefficients of a polynomial's power, by squaring."""
    result, base = np.ones(1), polynomial
    while exponent:
        if exponent & 1:
            result = np.convolve(result, base)
        exponent >>= 1
        if exponent:
            base = np.convolve(base, base)
    return result
