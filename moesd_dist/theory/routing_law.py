"""How many experts real text wakes up: popular experts, and neighbours that share them."""

# The uniform law of `experts` says what would be if every token chose uniformly and independently.
# Two things make it fewer, and one number stands for each. Popularity: the chance p that a token
# takes a given expert varies over experts as Beta(kappa rho, kappa (1 - rho)), mean rho = K/E; the
# mean of 1 - (1 - p)^t over it has a closed form. Correlation in time: of the tokens of one sequence
# in one forward, each after the first counts as `fresh_share` of an independent one (Cohere, 2026,
# finds 20 to 31 % fewer experts among four neighbours).

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln  # type: ignore[import-untyped, unused-ignore]

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingLaw:
    """`popularity` inf and `fresh_share` 1 is the uniform i.i.d. law.

    Raises ValueError unless popularity is positive and fresh_share lies in [0, 1].
    """

    popularity: float  # kappa: the smaller, the more a few experts serve everything
    fresh_share: float  # of a further token of the same sequence

    def __post_init__(self) -> None:
        if not self.popularity > 0.0:
            raise ValueError(f"popularity must be positive, got {self.popularity}; inf is uniform")
        if not 0.0 <= self.fresh_share <= 1.0:
            raise ValueError(f"fresh_share must lie in [0, 1], got {self.fresh_share}; 1 is i.i.d.")

    def activated_experts(
        self,
        num_experts: int,
        top_k: npt.ArrayLike,
        sequences: npt.ArrayLike,
        tokens_each: npt.ArrayLike,
    ) -> _Floats:
        """Expected distinct experts in one layer; the arrays broadcast, and so does the result.

        One token of one sequence wakes exactly top_k. A dense model (0 experts) gives zeros.
        Raises ValueError if a top_k lies outside 1..num_experts.
        """
        chosen, batch, each = (
            np.asarray(values, dtype=np.float64) for values in (top_k, sequences, tokens_each)
        )
        tokens = batch * (1.0 + (each - 1.0) * self.fresh_share)
        if not num_experts:
            return np.zeros(np.broadcast_shapes(chosen.shape, tokens.shape))
        if not np.all((chosen >= 1.0) & (chosen <= num_experts)):
            raise ValueError(
                f"top_k must lie in 1..{num_experts}, got {chosen}; count routed experts"
            )
        return num_experts * -np.expm1(self._log_missed(chosen / num_experts, tokens))

    def _log_missed(self, rho: _Floats, tokens: _Floats) -> _Floats:
        """ln of the mean chance that no token takes an expert."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if math.isinf(self.popularity):
                certain = tokens * np.log1p(-np.minimum(rho, 1.0))  # no token times -inf is nan
                return np.asarray(np.where(tokens > 0.0, certain, 0.0))
            missed = self.popularity * (1.0 - rho)
            rise = gammaln(missed + tokens) - gammaln(missed)
            fall = gammaln(self.popularity + tokens) - gammaln(self.popularity)
            return np.asarray(np.where(missed > 0.0, rise - fall, -math.inf))


UNIFORM = RoutingLaw(popularity=math.inf, fresh_share=1.0)
