"""How popular experts are: weights of a random top-K, and the chances that they make."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.experts import activation_ratio

_Floats = npt.NDArray[np.float64]

_NODES = 96  # of the integral over arrival times


def power_law_weights(num_experts: int, exponent: float, *, order: npt.ArrayLike = ()) -> _Floats:
    """Weight (place + 1)^-exponent, [expert]; `order` lists the experts, the most popular first.

    Without an order expert 0 leads. Raises ValueError unless order holds every expert once.
    """
    weights: _Floats = np.arange(1.0, num_experts + 1.0) ** -exponent
    given = np.asarray(order, dtype=np.int64)
    if not given.size:
        return weights
    if not np.array_equal(np.sort(given), np.arange(num_experts)):
        raise ValueError(f"order must hold each of {num_experts} experts once, got {given}")
    placed = np.empty(num_experts)
    placed[given] = weights
    return placed


def measured_weights(loads: npt.ArrayLike, top_k: int) -> _Floats:
    """Weights [..., expert] whose chances of being chosen are about proportional to measured loads.

    The chance p of an expert is its share of the load times top_k, and -ln(1 - p) its weight (Rosen's
    order sampling): exact for top_k 1, off by 1 % at most for 8 of 64 with loads like 1/place and by
    6 % for 2 of 8 (`chosen_chances` says how the weights turn out).
    Raises ValueError for loads that no top_k choice makes: negative, none, or a share above 1/top_k.
    """
    counted = np.asarray(loads, dtype=np.float64)
    total = counted.sum(axis=-1, keepdims=True)
    if not (np.all(counted >= 0.0) and np.all(total > 0.0)):
        raise ValueError("loads must be >= 0 with some above 0 in each layer; count tokens")
    chances = top_k * counted / total
    if np.any(chances > 1.0 + 1e-9):
        raise ValueError(
            f"an expert has {chances.max() / top_k:.3g} of the load, more than 1/{top_k}: every "
            "token counts once for each of its experts"
        )
    if top_k == 1:
        return np.asarray(chances)
    return np.asarray(-np.log1p(-np.minimum(chances, 1.0 - 1e-9)))


def beta_weights(
    rng: np.random.Generator, num_experts: int, top_k: int, popularity: float, draws: int
) -> _Floats:
    """Weights [draw, expert] of layers whose chances are Beta-distributed (`RoutingLaw`).

    Chances are scaled to the sum top_k, and none exceeds 1; `popularity` inf makes all equal.
    """
    rho = activation_ratio(num_experts, top_k)
    if math.isinf(popularity):
        return np.ones((draws, num_experts))
    chances = rng.beta(popularity * rho, popularity * (1.0 - rho), size=(draws, num_experts))
    for _ in range(20):  # capping takes from the sum, scaling gives it back
        chances *= top_k / chances.sum(axis=1, keepdims=True)
        np.clip(chances, 1e-30, 1.0 - 1e-9, out=chances)
    return np.asarray(-np.log1p(-chances))


def chosen_chances(weights: npt.ArrayLike, top_k: int) -> _Floats:
    """Chance of each expert, [expert], to be among the top_k of a token; they sum to top_k.

    Expert e arrives after an exponential time of rate weight_e and is chosen if fewer than top_k
    others came before: the integral of weight_e exp(-weight_e x) P(fewer than top_k others by x),
    by Gauss-Legendre quadrature; the number of others is a sum of independent yes or no.
    Raises ValueError if fewer than top_k weights are positive.
    """
    rates = np.asarray(weights, dtype=np.float64)
    activation_ratio(len(rates), top_k)
    if np.any(rates < 0.0) or np.count_nonzero(rates) < top_k:
        raise ValueError(f"weights must be >= 0, and at least top_k {top_k} of them above 0")
    if np.count_nonzero(rates) == top_k:
        return np.asarray(rates > 0.0, dtype=np.float64)
    nodes, parts = np.polynomial.legendre.leggauss(_NODES)
    place = (nodes + 1.0) / 2.0
    end = _full_by(rates, top_k)
    times = end * place**3  # denser where the popular ones arrive
    waits = np.exp(-times[:, None] * rates)
    density = rates * waits * _fewer_others(waits, top_k)
    chances = (parts / 2.0 * 3.0 * place**2 * end) @ density
    return np.asarray(chances * (top_k / chances.sum()))


def _full_by(rates: _Floats, top_k: int) -> float:
    """A time by which top_k experts besides any one have come, but for a chance below e^-30."""
    late = 1.0 / rates[rates > 0.0].max()
    while True:
        come = -np.expm1(-late * rates)
        behind = come.sum() - come.max() - top_k
        if behind > 0.0 and behind**2 > 60.0 * come.sum():  # Chernoff's bound
            return float(late)
        if np.exp(-late * rates[rates > 0.0]).max() < 1e-13:
            return float(late)
        late *= 1.3


def _fewer_others(waits: _Floats, top_k: int) -> _Floats:
    """P(fewer than top_k of the others have come), [time, expert]."""
    times, experts = waits.shape
    counts = np.zeros((top_k, times, experts))
    counts[0] = 1.0
    for other in range(experts):
        wait = np.repeat(waits[:, other, None], experts, axis=1)
        wait[:, other] = 1.0  # an expert is none of its own others
        counts[1:] = counts[1:] * wait + counts[:-1] * (1.0 - wait)
        counts[0] *= wait
    return np.asarray(counts.sum(axis=0))
