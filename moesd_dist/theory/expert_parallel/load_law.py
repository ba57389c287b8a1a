"""The law of one rank's load in one forward, before the loads of all ranks are known to add up."""

# Two tokens' loads of one rank covary as far as experts are popular: with chances drawn from
# Beta(kappa rho, kappa (1 - rho)) and experts dealt to ranks at random, the variance of a rank's
# load over that of t K independent throws is exactly
#     spread(t) = (E - K) / (E - 1) * (1 + (t - 1) / (kappa + 1)),        uniform: kappa = inf.

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, gammaln  # type: ignore[import-untyped, unused-ignore]

_Floats = npt.NDArray[np.float64]


def load_spread(
    num_experts: int, top_k: int, tokens: npt.ArrayLike, popularity: float = math.inf
) -> _Floats:
    """Variance of a rank's load over that of as many independent throws; tokens' shape."""
    alone = (num_experts - top_k) / max(num_experts - 1, 1)
    return alone * (1.0 + (np.asarray(tokens, dtype=np.float64) - 1.0) / (popularity + 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Throws:
    """top_k 1: Poisson, negative binomial under popularity. Given the sum they are exact.

    The sum makes them multinomial, or Dirichlet-multinomial, whose chances are Beta(kappa rho, ..).
    """

    total: int  # tokens
    spread: float  # at least 1

    def most(self, share: float) -> int:
        return self.total

    def log_mass(self, counts: _Floats, share: float) -> _Floats:
        mean = self.total * share
        ways = -gammaln(counts + 1.0)
        if self.spread == 1.0:
            return np.asarray(ways + counts * math.log(mean) - mean)
        size = share * (self.total - self.spread) / (self.spread - 1.0)
        ways += gammaln(counts + size) - gammaln(size)
        return np.asarray(ways + counts * math.log(mean / (mean + size)) - size * math.log1p(mean / size))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """top_k above 1: of the tokens x experts pairs on a rank, so many are chosen (beta-binomial).

    One token of uniform routing is exact: binomial, hypergeometric given the sum. For more tokens
    the sum K of each is not kept, only that of all; the beta-binomial's own spread makes up for it,
    so that mean and variance are right.
    """

    tokens: int
    num_experts: int
    top_k: int
    spread: float

    @property
    def total(self) -> int:
        return self.tokens * self.top_k

    def most(self, share: float) -> int:
        return round(self.tokens * self.num_experts * share)

    def log_mass(self, counts: _Floats, share: float) -> _Floats:
        pairs, chance = self.most(share), self.top_k / self.num_experts
        left = pairs - counts
        ways = gammaln(pairs + 1.0) - gammaln(counts + 1.0) - gammaln(left + 1.0)
        excess = self._over_binomial() - 1.0
        if excess < 1e-12:
            return np.asarray(ways + counts * math.log(chance) + left * math.log1p(-chance))
        # At least what a rank whose experts are always chosen together would have.
        size = max((pairs - 1.0) / excess - 1.0, 1e-3)
        hit, missed = size * chance, size * (1.0 - chance)
        return np.asarray(ways + betaln(counts + hit, left + missed) - betaln(hit, missed))

    def _over_binomial(self) -> float:
        """The wanted variance over the one that binomial counts have once their sum is fixed."""
        pool = self.tokens * self.num_experts
        return self.spread * (pool - 1) / (pool - self.total)
