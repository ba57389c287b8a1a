"""What a fit leaves open, where it is worst, and what to measure next."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.fitting.residuals import regime_residuals
from analysis.fitting.results import OURS, FitResult
from analysis.fitting.tables import percent
from moesd_dist.theory.steps.uncertainty import step_identifiability
from moesd_dist.theory.validation.regimes import Regime
from moesd_dist.theory.validation.scores import Scores
from moesd_dist.theory.validation.splits import Kind

_BEYOND = 1.5  # times the device's figure, which a calibration may have missed by a third
_MEASURE = {
    Kind.GAMMA: "measure each gamma that may be deployed",
    Kind.TOP_K: "measure each top_k that may be deployed",
    Kind.RANKS: "measure each number of ranks that may be deployed",
    Kind.LARGEST: "measure up to the largest batch that may be deployed",
    Kind.BASELINES: "measure more batch sizes",
    Kind.POINTS: "measure more points, or more repeats of each",
    Kind.STRIDED: "fit more of the points",
}


def fit_advice(result: FitResult) -> list[str]:
    """Parameters that the data leave open, the worst regime, and what would improve the fit."""
    sentences = [*_open(result), *_impossible(result)]
    return [*sentences, _worst_regime(result), _advice(result)]


def _open(result: FitResult) -> Iterator[str]:
    """What the data cannot separate, of both models."""
    parts = step_identifiability(result.fit)
    unknown = [f"{part} {name}" for part, found in parts.items() for name in found.from_prior]
    alike = [f"{part} {a} from {b}" for part, found in parts.items() for a, b in found.inseparable]
    if unknown:
        yield f"The data say little about {', '.join(unknown)}: their priors speak."
    if alike:
        yield f"The data do not tell apart {', '.join(alike)}."
    if result.moesd is not None:
        known = result.moesd.identifiable
        yield (
            f"Of the ten directions of MoESD's parameters the speedups fix {known.seen_directions};"
            f" {', '.join(known.inseparable) or 'none'} stay open, and its bounds rather than the"
            f" data hold {', '.join(known.at_limit) or 'none'}."
        )


def _impossible(result: FitResult) -> Iterator[str]:
    """A rate beyond the device's own: some other parameter stands for it."""
    if result.models.moesd is None:
        return
    figures, devices = result.models.moesd.figures, result.models.moesd.tp_size
    limits = {"bytes_per_s": figures.bytes_per_s, "flops": figures.flops}
    for name, peak in limits.items():
        value = result.fit.parts["target"].values.get(name, 0.0)
        if value > _BEYOND * devices * peak:
            yield (
                f"The fitted {name} of the target, {value:.2g}, is more than the device's"
                f" {devices * peak:.2g}: another parameter stands for it. Predictions on this device"
                " do not mind; do not carry the fit to another device."
            )


def _worst_regime(result: FitResult) -> str:
    found = regime_residuals(result)
    worst = max(found, key=lambda regime: found[regime].rms)
    possible = [
        r for r in Regime if r is not Regime.FEW_EXPERTS or result.models.target.num_experts
    ]
    missing = [regime.value for regime in possible if regime not in found]
    text = (
        f"Target forwards are predicted worst with {worst.value}: rms {percent(found[worst].rms)}"
    )
    return f"{text}; no point had {' or '.join(missing)}." if missing else f"{text}."


def _advice(result: FitResult) -> str:
    ours = result.scores[OURS]
    worst = max(ours, key=lambda kind: mape(ours[kind]))
    place = _widest(result)
    why = f" (the error is largest, {percent(mape(ours[worst]))}, holding out {worst.value})"
    return (
        f"To improve: {_MEASURE[worst]}{why if len(ours) > 1 else ''}; the interval is widest at"
        f" {at_place(result, place)}."
    )


def _widest(result: FitResult) -> int:
    """The point whose prediction is least sure when it is held out."""
    widths = np.zeros(len(result.sample.data))
    for split, forecast in result.held_out(OURS, result.headline):
        if forecast.low is not None and forecast.high is not None:
            widths[split.test] = np.log(forecast.high / forecast.low)[split.test]
    return int(np.argmax(widths))


def at_place(result: FitResult, place: int) -> str:
    """Such as `B=8 gamma=3 top_k=4`, and on how many ranks where that differs."""
    m = result.sample.measured[place]
    top_k = f" top_k={m.top_k}" if m.top_k else ""
    ranks = f" ranks={m.point.layout.dp_size}" if result.sample.ranks != [1] else ""
    return f"B={m.point.batch_size} gamma={m.point.gamma}{top_k}{ranks}"


def mape(found: Scores) -> float:
    """Of blind speedups."""
    return found.errors["speedup"].mape
