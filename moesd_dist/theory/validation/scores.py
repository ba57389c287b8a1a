"""How far predictions lie from points that were held back, and what a choice by them costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.steps.data import StepData
from moesd_dist.theory.steps.settings import expected_at
from moesd_dist.theory.validation.forecast import Forecast, Forecaster
from moesd_dist.theory.validation.regret import Regret, regrets
from moesd_dist.theory.validation.splits import Kind, Split

_Floats = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]

STEPS = ("target_decode_s", "target_verify_s", "draft_step_s")
SPEEDUPS = ("speedup", "speedup_given_sigma")


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Of predictions relative to what was measured, as shares: 0.05 is 5 %."""

    mape: float  # mean of |predicted / measured - 1|
    worst: float
    bias: float  # mean of predicted / measured - 1
    values: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """A split and what its training points say of all points; no forecast where they were too few."""

    split: Split
    forecast: Forecast | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Of one model on everything that one kind of split held back."""

    kind: Kind
    errors: dict[str, Errors]  # by SPEEDUPS and, for a model with seconds, those STEPS held out
    coverage: float | None  # share of speedups inside the 95 % interval of one measurement
    regret: Regret


def cross_validate(
    data: StepData, settings: npt.ArrayLike, splits: Sequence[Split], forecaster: Forecaster
) -> list[HeldOut]:
    """Each split fitted and predicted; `settings` as in `steps.settings`, [points]."""
    return [_held_out(data, np.asarray(settings), split, forecaster) for split in splits]


def _held_out(
    data: StepData, settings: npt.NDArray[np.intp], split: Split, forecaster: Forecaster
) -> HeldOut:
    train = data.take(split.train)
    expected = expected_at(train, settings[split.train], data, settings)
    try:
        return HeldOut(split=split, forecast=forecaster(train, data, expected))
    except ValueError as error:  # too few points, or one batch size: said, not hidden
        return HeldOut(split=split, forecast=None, reason=str(error))


def scores(data: StepData, held: Sequence[HeldOut]) -> dict[Kind, Scores]:
    """By kind of split, in their order; kinds without any forecast are missing."""
    kinds = dict.fromkeys(h.split.kind for h in held if h.forecast)
    return {kind: score(data, [h for h in held if h.split.kind is kind]) for kind in kinds}


def score(data: StepData, held: Sequence[HeldOut]) -> Scores:
    """Of several splits of one kind, all held-out points together."""
    pairs = [(h.split, h.forecast) for h in held if h.forecast]
    names = [*SPEEDUPS, *(STEPS if pairs[0][1].times else ())]
    return Scores(
        kind=pairs[0][0].kind,
        errors={name: found for name in names if (found := _pooled_errors(data, pairs, name))},
        coverage=_coverage(data, pairs),
        regret=regrets([(f.speedup, split.test) for split, f in pairs], data),
    )


def errors(predicted: npt.ArrayLike, measured: npt.ArrayLike) -> Errors:
    """Of positive numbers, [values]."""
    off = np.asarray(predicted, np.float64) / np.asarray(measured, np.float64) - 1.0
    return Errors(
        mape=float(np.abs(off).mean()),
        worst=float(np.abs(off).max()),
        bias=float(off.mean()),
        values=off.size,
    )


def noise_floor(data: StepData) -> float | None:
    """Mean |error| that a perfect prediction would have: the measurements' own; None if unknown.

    Of a normal error the mean size is sqrt(2 / pi) of its standard deviation, here the standard
    error of the logarithm over paired repeats.
    """
    known = data.speedup_spread[data.speedup_spread > 0.0]
    return float(known.mean()) * math.sqrt(2.0 / math.pi) if known.size else None


def unseen_baselines(data: StepData, split: Split) -> _Indices:
    """One held-out point of each baseline of which no point was fitted: its decoding was not seen."""
    own = data.group[split.test]
    places = split.test[~np.isin(own, data.group[split.train])]
    return np.asarray(places[np.unique(data.group[places], return_index=True)[1]])


def _pooled_errors(
    data: StepData, held: Sequence[tuple[Split, Forecast]], name: str
) -> Errors | None:
    """None where nothing of the name was held out, or nothing took any time: lookup may not."""
    predicted, measured = list[_Floats](), list[_Floats]()
    for split, forecast in held:
        places = unseen_baselines(data, split) if name == "target_decode_s" else split.test
        source = forecast if name in SPEEDUPS else forecast.times
        predicted.append(np.asarray(getattr(source, name))[places])
        measured.append(np.asarray(getattr(data, "speedup" if name in SPEEDUPS else name))[places])
    told, seen = np.concatenate(predicted), np.concatenate(measured)
    timed = seen > 0.0
    return errors(told[timed], seen[timed]) if timed.any() else None


def _coverage(data: StepData, held: Sequence[tuple[Split, Forecast]]) -> float | None:
    inside = list[npt.NDArray[np.bool_]]()
    for split, forecast in held:
        if forecast.low is None or forecast.high is None:
            return None
        within = (forecast.low <= data.speedup) & (data.speedup <= forecast.high)
        inside.append(within[split.test])
    return float(np.concatenate(inside).mean())
