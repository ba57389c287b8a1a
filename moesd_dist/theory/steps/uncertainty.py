"""How far the parameters of a step fit can be trusted, and which of them the data cannot tell apart."""

# Two intervals that share no assumption: the Jacobian's (in `LogFit.interval`: the law is nearly
# straight, the noise normal) and the bootstrap's (groups are drawn again, whatever their noise).

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.counts import ModelCounts
from moesd_dist.theory.expert_parallel.ranks_fit import ALONE, SharedTerms
from moesd_dist.theory.steps.data import StepData
from moesd_dist.theory.steps.fit import StepFit, fit_steps
from moesd_dist.theory.steps.log_fit import LogFit
from moesd_dist.theory.steps.priors import Peaks

_Floats = npt.NDArray[np.float64]

_LEARNED = 0.5  # of a prior's variance: below it the prior speaks, not the data
_ALIKE = 0.9  # correlation from which two parameters are told apart by their priors only

Intervals = dict[str, dict[str, tuple[float, float]]]  # part, parameter: low and high


@dataclass(frozen=True, slots=True, kw_only=True)
class PartIdentifiability:
    """What the data say about the parameters of one part."""

    learned: dict[str, float]  # share of the prior's variance that the data removed
    from_prior: tuple[str, ...]  # learned less than half
    inseparable: tuple[tuple[str, str], ...]  # only a combination of the two is known
    seen_directions: int  # combinations that the data know better than the priors do


def step_identifiability(fit: StepFit) -> dict[str, PartIdentifiability]:
    """For each part of the fit."""
    return {name: _of_part(part) for name, part in fit.parts.items()}


def bootstrap(
    data: StepData,
    *,
    target: ModelCounts,
    draft: ModelCounts,
    peaks: Peaks | None = None,
    draws: int = 100,
    seed: int = 0,
    level: float = 0.95,
    shared: SharedTerms = ALONE,
) -> Intervals:
    """Percentile intervals of every parameter over refits to groups drawn with replacement.

    Groups are drawn, not points: those of one group share a baseline and a minute of the machine.
    Draws of a single batch size are left out, since nothing can be fitted to them, and where points
    are of several ranks draws of one rank alone, which know no links.
    Raises ValueError if fewer than 20 draws are asked for, or as `fit_steps` does.
    """
    if draws < 20:
        raise ValueError(f"bootstrap needs at least 20 draws, got {draws}; 100 is the default")
    refit = partial(fit_steps, target=target, draft=draft, peaks=peaks, shared=shared)
    refit(data)  # refuses what no draw could be fitted to
    random = np.random.default_rng(seed)
    drawn = (_draw(data, random) for _ in range(draws))
    fits = [refit(sample) for sample in drawn if _is_enough(sample, data)]
    return {part: _percentiles([f.parts[part] for f in fits], level) for part in fits[0].parts}


def _draw(data: StepData, random: np.random.Generator) -> StepData:
    """As many groups as there are, each draw a group of its own."""
    labels = np.unique(data.group)
    chosen = random.choice(labels, size=labels.size)
    members = [np.flatnonzero(data.group == label) for label in chosen]
    again = np.repeat(np.arange(labels.size), [len(m) for m in members])
    return data.take(np.concatenate(members)).regrouped(again)


def _is_enough(sample: StepData, data: StepData) -> bool:
    several = bool(np.any(sample.ranks > 1.0) or np.all(data.ranks == 1.0))
    return several and np.unique(sample.batch_size).size > 1


def _percentiles(fits: list[LogFit], level: float) -> dict[str, tuple[float, float]]:
    tails = [50.0 * (1.0 - level), 50.0 * (1.0 + level)]
    values = {name: [fit.values[name] for fit in fits] for name in fits[0].names}
    ends = {name: np.percentile(found, tails) for name, found in values.items()}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}


def _of_part(fit: LogFit) -> PartIdentifiability:
    learned = {name: fit.learned(name) for name in fit.names}
    seen = np.linalg.eigvalsh(fit.information) > 1.0  # 1 is what a prior knows
    return PartIdentifiability(
        learned=learned,
        from_prior=tuple(name for name, share in learned.items() if share < _LEARNED),
        inseparable=_inseparable(fit),
        seen_directions=int(seen.sum()),
    )


def _inseparable(fit: LogFit) -> tuple[tuple[str, str], ...]:
    spreads = np.sqrt(np.diag(fit.covariance))
    alike = np.abs(fit.covariance / np.outer(spreads, spreads)) > _ALIKE
    pairs = zip(*np.nonzero(np.triu(alike, k=1)), strict=True)
    return tuple((fit.names[i], fit.names[j]) for i, j in pairs)
