"""Acceptance position by position: from counts or published lengths to sigma at any gamma."""

# Conditional rates are kept, since they alone can be pooled over measurements of different gamma and
# carried to another gamma. Each is a share of the rounds in which the position's turn came; those
# shares are uncorrelated, so that their variances add up (a round is a martingale).

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from moesd_dist.theory import acceptance
from moesd_dist.theory.acceptance_lengths import conditional_from_lengths


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceProfile:
    """P(position accepted, given all before it were) of the positions known, [longest gamma].

    `tried` [longest gamma] are the rounds in which a position's turn came: those that drafted it and
    accepted all before it. Empty means unknown: then no variance can be given.
    Positions beyond the known ones repeat the last rate; `extrapolated` says how many do.
    `dispersion` is the real variance over that of independent rounds; rounds of one text are not.

    Raises ValueError if there is no rate, if one lies outside [0, 1], or if `tried` does not fit.
    """

    conditional: tuple[float, ...]
    tried: tuple[int, ...] = ()
    dispersion: float = 1.0  # at least

    def __post_init__(self) -> None:
        acceptance.unconditional_from_conditional(self.conditional)
        if not self.conditional:
            raise ValueError("a profile needs the rate of at least one position, got none")
        if self.tried and (len(self.tried) != len(self.conditional) or min(self.tried) < 1):
            raise ValueError(
                f"each of {len(self.conditional)} rates is a share of at least one round, got "
                f"{self.tried}; leave out positions that were never tried"
            )
        if not self.dispersion >= 1.0:
            raise ValueError(f"dispersion is at least 1, got {self.dispersion}; 1 if unknown")

    @classmethod
    def from_counts(cls, accepted_per_position: Sequence[int], rounds: int) -> AcceptanceProfile:
        """From the rounds that accepted each position, [gamma], of `rounds` that drafted all of them.

        Positions behind one that was never accepted are left out: they were never tried.

        Raises ValueError if there are no rounds, or if the counts ever increase or exceed them.
        """
        counts = [rounds, *accepted_per_position]
        if rounds < 1:
            raise ValueError(f"rates are shares of rounds, got {rounds} rounds; give at least one")
        for before, after in pairwise(counts):
            if not 0 <= after <= before:
                raise ValueError(
                    f"rounds that accept a position are among those that accept the one before, got "
                    f"{before} then {after}; give unconditional counts in the order of positions"
                )
        pairs = [(a, t) for a, t in zip(accepted_per_position, counts, strict=False) if t]
        return cls(conditional=tuple(a / t for a, t in pairs), tried=tuple(t for _, t in pairs))

    @classmethod
    def from_unconditional(cls, rates: Sequence[float], *, rounds: int = 0) -> AcceptanceProfile:
        """From P(position accepted), [gamma], over `rounds`; 0 if their number is unknown.

        Raises ValueError if the rates lie outside [0, 1] or ever increase.
        """
        found = acceptance.conditional_from_unconditional(rates)
        conditional = tuple(float(rate) for rate in found[~np.isnan(found)])
        reached = [1.0, *rates][: len(conditional)]
        tried = tuple(max(1, round(rounds * share)) for share in reached) if rounds else ()
        return cls(conditional=conditional, tried=tried)

    @classmethod
    def from_lengths(
        cls, lengths: Mapping[int, float], *, bonus_included: bool = True
    ) -> AcceptanceProfile:
        """From acceptance lengths by gamma, as `conditional_from_lengths` takes them; rounds unknown."""
        return cls(conditional=conditional_from_lengths(lengths, bonus_included=bonus_included))

    @property
    def rounds(self) -> int:
        """Rounds behind the first position's rate; 0 if unknown."""
        return self.tried[0] if self.tried else 0

    def extrapolated(self, gamma: int) -> int:
        """How many of `gamma` positions repeat the last known rate; none behind a rate of 0."""
        return 0 if 0.0 in self.conditional else max(0, gamma - len(self.conditional))

    def rates(self, gamma: int) -> tuple[float, ...]:
        """Conditional rates, [gamma], the last known one repeated as often as needed."""
        acceptance.check_gamma(gamma, least=0)
        beyond = max(0, gamma - len(self.conditional))
        return (*self.conditional[:gamma], *[self.conditional[-1]] * beyond)

    def unconditional(self, gamma: int) -> tuple[float, ...]:
        """P(position accepted), [gamma]: what vLLM counts; never increases."""
        return tuple(acceptance.unconditional_from_conditional(self.rates(gamma)).tolist())

    def acceptance_length(self, gamma: int) -> float:
        """Tokens per round, the bonus token included: between 1 and gamma + 1."""
        return acceptance.acceptance_length(self.unconditional(gamma))

    def sigma(self, gamma: int) -> float:
        """Acceptance length over gamma + 1."""
        return self.acceptance_length(gamma) / (gamma + 1)

    def sigma_variance(self, gamma: int) -> float:
        """Variance of `sigma` from the number of rounds; 0 if that is unknown.

        Delta method over binomial rates, times `dispersion`. At the gamma that was measured and
        dispersion 1 it equals the sample variance of a round's tokens over the rounds. The bias of
        an extrapolated rate is not in it.
        """
        if not self.tried:
            return 0.0
        last = len(self.conditional) - 1
        slopes = np.zeros(last + 1)
        # A rate that is repeated has one slope: the sum over the positions that use it.
        np.add.at(slopes, np.minimum(np.arange(gamma), last), _slopes(self.rates(gamma)))
        rates = np.asarray(self.conditional)
        variances = rates * (1.0 - rates) / np.asarray(self.tried)
        return self.dispersion * float((slopes**2 * variances).sum()) / (gamma + 1) ** 2


def pooled(profiles: Sequence[AcceptanceProfile]) -> AcceptanceProfile:
    """One profile of several measurements: each position over all the rounds that tried it.

    Raises ValueError if there is none, or if the rounds behind one are unknown.
    """
    if not profiles or not all(profile.tried for profile in profiles):
        raise ValueError(
            f"pooling needs profiles with their rounds, got {len(profiles)}, "
            f"{sum(not p.tried for p in profiles)} without; give counts, or use one of them alone"
        )
    longest = max(len(profile.tried) for profile in profiles)
    having = [[p for p in profiles if len(p.tried) > i] for i in range(longest)]
    tried = [sum(p.tried[i] for p in members) for i, members in enumerate(having)]
    accepted = [sum(p.conditional[i] * p.tried[i] for p in ps) for i, ps in enumerate(having)]
    # At most 1: a sum of products may end a rounding error above it.
    rates = [min(1.0, a / t) for a, t in zip(accepted, tried, strict=True)]
    worst = max(profile.dispersion for profile in profiles)
    return AcceptanceProfile(conditional=tuple(rates), tried=tuple(tried), dispersion=worst)


def _slopes(rates: Sequence[float]) -> list[float]:
    """d(acceptance length) / d(rate), [gamma]: P(its turn comes) times what an acceptance brings."""
    slopes, reached = list[float](), 1.0
    for place, rate in enumerate(rates):
        brings = 1.0 + float(np.cumprod(rates[place + 1 :]).sum())
        slopes.append(reached * brings)
        reached *= rate
    return slopes
