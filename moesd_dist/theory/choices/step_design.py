"""What measuring each point of a pool would teach a step fit: seconds, experts and acceptance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.acceptance_profile import AcceptanceProfile
from moesd_dist.theory.choices.design import Part
from moesd_dist.theory.steps.fit import StepFit
from moesd_dist.theory.steps.model import Grid
from moesd_dist.theory.steps.prediction import log_slopes

_Floats = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]

_FIGURES = {  # that a measured point tells each part of the fit, its baseline's first
    "target": ("target_decode_s", "target_verify_s"),
    "draft": ("draft_step_s",),
    "reject": ("baseline_reject_s", "reject_s"),
    "routing": ("decode_experts", "verify_experts"),
}
_SLOPE_STEP = 1e-3  # of a prior's spread
_ROUNDS_OF_A_GUESS = 8.0  # a rate that was never tried is as uncertain as after so many rounds
_ALIKE = (
    4.0  # rounds of a text count as so many times fewer: 2 to 5 between repeats of quickstart_cpu
)
_SURE = 0.02  # no rate is taken as nearer to 0 or 1: a variance of 0 would end all learning


def step_parts(fit: StepFit, grid: Grid, group: _Indices, measured: _Indices) -> list[Part]:
    """One part for each of the fit; the questions are the log speedups of the grid's points.

    `group` [points] tells which share a baseline, `measured` which points the fit has seen.
    """
    slopes = log_slopes(fit, grid)
    parts = [_step_part(fit, grid, group, name, slopes[name]) for name in fit.parts]
    return [_informed(part, group, measured) for part in parts]


def acceptance_part(
    profiles: Sequence[AcceptanceProfile], setting: _Indices, gamma: _Floats, tokens: _Floats
) -> Part:
    """Conditional rates by setting and position; the questions are log acceptance lengths.

    `setting` [points] is the place of each point's profile, `tokens` what measuring it would write.
    """
    longest, count = int(gamma.max()), len(profiles) * int(gamma.max())
    told, asked = np.zeros((len(gamma), longest, count)), np.zeros((len(gamma), count))
    spreads = [_rate_variances(profile, longest) for profile in profiles]
    for point, (place, drafted) in enumerate(zip(setting, gamma.astype(int), strict=True)):
        rates = _inner(profiles[place].rates(drafted))
        own = place * longest + np.arange(drafted)
        reached = np.cumprod(rates)
        length = 1.0 + reached.sum()
        asked[point, own] = reached[::-1].cumsum()[::-1] / rates / length
        turns = tokens[point] / _ALIKE / length * reached / rates
        told[point, np.arange(drafted), own] = np.sqrt(turns / (rates * (1.0 - rates)))
    return Part(covariance=np.diag(np.concatenate(spreads)), rows=told, questions=asked)


def _step_part(fit: StepFit, grid: Grid, group: _Indices, name: str, asked: _Floats) -> Part:
    """Before any measurement: parameters as their priors leave them, and a drift of each group."""
    centre = {part: found.offsets for part, found in fit.parts.items()}
    part, told = fit.parts[name], _FIGURES[name]

    def logs(offsets: _Floats) -> _Floats:
        times = fit.model_at(centre | {name: offsets}).round_seconds(grid)
        return np.stack([np.log(getattr(times, figure)) for figure in told], axis=1)

    steps = np.eye(len(part.offsets)) * _SLOPE_STEP
    sides = [logs(part.offsets + s) - logs(part.offsets - s) for s in steps]
    slopes = np.stack(sides, axis=-1) / (2.0 * _SLOPE_STEP)
    labels = np.unique(group, return_inverse=True)[1]
    drifts = part.drift * np.eye(labels.max() + 1)[labels]  # one more parameter for each group
    rows = np.concatenate([slopes, np.repeat(drifts[:, None, :], len(told), axis=1)], axis=2)
    return Part(
        covariance=np.eye(rows.shape[2]),
        rows=rows / part.scatter,
        questions=np.concatenate([asked, np.zeros_like(drifts)], axis=1),
        shared=len(told) - 1,
    )


def _informed(part: Part, group: _Indices, measured: _Indices) -> Part:
    for place in measured:
        part = part.told(int(place), group == group[place])
    return part


def _rate_variances(profile: AcceptanceProfile, longest: int) -> _Floats:
    tried = np.zeros(longest)
    known = min(longest, len(profile.tried))
    tried[:known] = np.asarray(profile.tried[:known]) / _ALIKE
    rates = _inner(profile.rates(longest))
    return np.asarray(rates * (1.0 - rates) / (tried + _ROUNDS_OF_A_GUESS))


def _inner(rates: Sequence[float]) -> _Floats:
    return np.clip(np.asarray(rates, dtype=np.float64), _SURE, 1.0 - _SURE)
