"""What a setting fixes besides seconds: how many drafts are accepted, and how long sequences are."""

# A setting is all that acceptance depends on: workload, temperature, experts per token. It does not
# depend on the batch size, so points of one setting are pooled. One without any fitted point takes
# the acceptance of all of them: nothing better is known.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.acceptance_profile import AcceptanceProfile
from moesd_dist.theory.steps.data import StepData

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Expected:
    """Of points to predict, without looking at them; every array is [points]."""

    sigma: _Floats
    sigma_variance: _Floats  # what counting left open of sigma
    counting_variance: _Floats  # what counting adds in one measurement of so many rounds there
    context_tokens: _Floats


def acceptance_profile(data: StepData) -> AcceptanceProfile:
    """Conditional rates over all rounds that tried a position; the longest gamma's number of them."""
    accepted, tried = list[float](), list[float]()
    for place in range(data.accepted.shape[1]):
        drafted = data.gamma > place
        before = data.accepted[:, place - 1] if place else data.sequence_rounds
        if not (reached := float(before[drafted].sum())):
            break  # nobody got that far
        accepted.append(float(data.accepted[drafted, place].sum()))
        tried.append(reached)
    rates = (a / t for a, t in zip(accepted, tried, strict=True))
    return AcceptanceProfile(
        conditional=tuple(rates),
        tried=tuple(map(int, tried)),
        dispersion=float(data.dispersion.max()),
    )


def expected_at(
    train: StepData, train_settings: npt.ArrayLike, points: StepData, settings: npt.ArrayLike
) -> Expected:
    """From the training points alone; settings are labels, [points] of their data."""
    known, asked = np.asarray(train_settings), np.asarray(settings)
    found = {s: _Setting(_of(train, known == s)) for s in np.unique(asked)}
    places = zip(asked, points.gamma, points.sequence_rounds, strict=True)
    rows = [found[s].at(int(gamma), int(rounds)) for s, gamma, rounds in places]
    sigma, variance, counting, context = np.array(rows, dtype=np.float64).T
    return Expected(
        sigma=sigma, sigma_variance=variance, counting_variance=counting, context_tokens=context
    )


class _Setting:
    def __init__(self, data: StepData) -> None:
        self._profile = acceptance_profile(data)
        self._context = float(np.average(data.context_tokens, weights=data.sequence_rounds))

    def at(self, gamma: int, rounds: int) -> tuple[float, float, float, float]:
        """Sigma, its variance, that of a measurement of so many rounds, and the context."""
        profile = self._profile
        there = AcceptanceProfile.from_unconditional(profile.unconditional(gamma), rounds=rounds)
        own = there.sigma_variance(gamma)
        return profile.sigma(gamma), profile.sigma_variance(gamma), own, self._context


def _of(data: StepData, chosen: npt.NDArray[np.bool_]) -> StepData:
    """The chosen points, or all of them if there is none."""
    return data.take(np.flatnonzero(chosen)) if chosen.any() else data
