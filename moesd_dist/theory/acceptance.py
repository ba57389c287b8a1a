"""How many tokens a round yields when each draft token is accepted with a given chance."""

# Three numbers are often taken for one another. At alpha 0.8 and gamma 4 the acceptance length is
# 3.36 tokens, sigma is 0.672, and the draft acceptance rate (accepted / drafted) is 0.590.
# Source: MoESD (arXiv 2505.19645), the definition of sigma under its Eq. 4.

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq  # type: ignore[import-untyped, unused-ignore]

_Rates = npt.NDArray[np.float64]


def tokens_per_round(alpha: float, gamma: int) -> float:
    """Expected tokens from one round, the bonus token included: between 1 and gamma + 1.

    The law is (1 - alpha^(gamma+1)) / (1 - alpha), summed here as 1 + alpha + ... + alpha^gamma,
    which is exact at alpha = 1 and loses no digits near it.

    Raises ValueError if alpha lies outside [0, 1] or gamma is negative.
    """
    _check_alpha(alpha)
    check_gamma(gamma, least=0)
    total = 0.0
    for _ in range(gamma + 1):
        total = 1.0 + alpha * total
    return total


def sigma(alpha: float, gamma: int) -> float:
    """Expected tokens of a round over the most it could yield: between 1 / (gamma + 1) and 1."""
    return tokens_per_round(alpha, gamma) / (gamma + 1)


def draft_acceptance_rate(alpha: float, gamma: int) -> float:
    """Expected accepted over drafted tokens, the bonus token not included: between 0 and alpha.

    Raises ValueError if gamma is below 1: nothing is drafted, so there is no rate.
    """
    check_gamma(gamma, least=1)
    return alpha * tokens_per_round(alpha, gamma - 1) / gamma


def alpha_from_sigma(sigma: float, gamma: int) -> float:
    """The alpha in [0, 1] that gives this sigma; there is only one, since sigma grows with alpha.

    Raises ValueError if gamma is below 1 (sigma is then 1 whatever alpha is), or if sigma lies
    outside [1 / (gamma + 1), 1].
    """
    check_gamma(gamma, least=1)
    check_sigma(sigma, gamma)
    return float(
        brentq(lambda alpha: tokens_per_round(alpha, gamma) / (gamma + 1) - sigma, 0, 1, xtol=1e-15)
    )


def unconditional_from_conditional(rates: npt.ArrayLike) -> _Rates:
    """P(position i accepted) from P(position i accepted, given all before it were); both [gamma].

    Raises ValueError if the rates are not one-dimensional or lie outside [0, 1].
    """
    return np.cumprod(_checked_rates(rates), dtype=np.float64)


def conditional_from_unconditional(rates: npt.ArrayLike) -> _Rates:
    """P(accepted, given all before it were) from P(accepted), per position; both [gamma].

    Neighbours are divided. A position behind one that was never accepted was never tried: its
    conditional rate is unknown and comes back as nan.

    Raises ValueError if the rates are not one-dimensional, lie outside [0, 1] or ever increase.
    """
    accepted = _checked_unconditional(rates)
    tried = np.concatenate(([1.0], accepted))[: accepted.size]
    return np.divide(accepted, tried, out=np.full_like(accepted, np.nan), where=tried > 0.0)


def acceptance_length(unconditional_rates: npt.ArrayLike) -> float:
    """Tokens per round, the bonus token included, from P(position i accepted), array [gamma].

    Raises ValueError if the rates are not one-dimensional, lie outside [0, 1] or ever increase.
    """
    return 1.0 + float(_checked_unconditional(unconditional_rates).sum())


def check_gamma(gamma: int, *, least: int) -> None:
    """Raise ValueError if fewer than `least` tokens are drafted per round."""
    if not gamma >= least:
        raise ValueError(f"gamma must be at least {least}, got {gamma}; give drafts per round")


def check_sigma(sigma: float, gamma: int) -> None:
    """Raise ValueError unless rounds with gamma draft tokens can have that sigma."""
    if not 1.0 / (gamma + 1) <= sigma <= 1.0:
        raise ValueError(
            f"sigma lies between 1 / (gamma + 1) and 1, got {sigma} at gamma {gamma};"
            " use acceptance_length / (gamma + 1), the bonus token included"
        )


def _check_alpha(alpha: float) -> None:
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha is a probability, got {alpha}; use a value in [0, 1]")


def _checked_rates(rates: npt.ArrayLike) -> _Rates:
    array = np.asarray(rates, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(
            f"rates hold one number per draft position, got shape {array.shape}; use [gamma]"
        )
    outside = array[~((array >= 0.0) & (array <= 1.0))]
    if outside.size:
        raise ValueError(
            f"a rate is a probability, got {outside[0]}; use accepted / rounds, in [0, 1]"
        )
    return array


def _checked_unconditional(rates: npt.ArrayLike) -> _Rates:
    array = _checked_rates(rates)
    rises = np.flatnonzero(np.diff(array) > 0.0)
    if rises.size:
        before, after = array[rises[0]], array[rises[0] + 1]
        raise ValueError(
            f"unconditional rates never increase with position, got {before} then {after};"
            " pass conditional rates through unconditional_from_conditional"
        )
    return array
