"""What a fit is worth, in sentences: errors on held-out points against the noise, and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

import numpy as np

from analysis.fit_results import MOESD, OURS, FitResult, regime_residuals
from analysis.fit_tables import percent
from analysis.heading import MEANINGS, flagged, labels
from moesd_dist.records import Measurement
from moesd_dist.sweep.statistics import speedup
from moesd_dist.theory.regimes import Regime
from moesd_dist.theory.splits import Kind
from moesd_dist.theory.step_uncertainty import step_identifiability
from moesd_dist.theory.validation import Scores, noise_floor

_WIDE = 0.15  # short of the interval's 95 %, from which it is called too narrow
_MEASURE = {
    Kind.GAMMA: "measure each gamma that may be deployed",
    Kind.TOP_K: "measure each top_k that may be deployed",
    Kind.LARGEST: "measure up to the largest batch that may be deployed",
    Kind.BASELINES: "measure more batch sizes",
    Kind.POINTS: "measure more points, or more repeats of each",
    Kind.STRIDED: "fit more of the points",
}


def fit_verdict(result: FitResult) -> list[str]:
    """Cautions first, then errors, comparison, regret, what is open, and what to measure."""
    measured = result.sample.measured
    sentences = [f"{name}: {MEANINGS[name]}." for name in labels(measured)]
    sentences += [f"Flagged: {text}." for text in flagged(measured)]
    sentences += [_headline(result), *_noise(result), _worst_point(result)]
    sentences += [_comparison(result), _regret(result), *_coverage(result)]
    sentences += [*_open(result), _worst_regime(result), _advice(result)]
    return sentences


def control_error(controls: Sequence[Measurement]) -> tuple[float, float] | None:
    """Mean and worst |A/A speedup - 1|; None without controls."""
    off = [abs(speedup(m) - 1.0) for m in controls]
    return (fmean(off), max(off)) if off else None


def _headline(result: FitResult) -> str:
    kind = result.headline
    found = result.scores[OURS][kind]
    blind, given = found.errors["speedup"], found.errors["speedup_given_sigma"]
    return (
        f"Fitted to {len(result.fitted)} of {len(result.sample.data)} points. Held out, {kind.value}:"
        f" predicted speedups are off by {percent(blind.mape)} on average and"
        f" {percent(blind.worst)} at worst with acceptance from the fitted points, by"
        f" {percent(given.mape)} with the measured acceptance."
    )


def _noise(result: FitResult) -> Iterator[str]:
    floor = noise_floor(result.sample.data)
    if floor is not None:
        yield f"The repeats alone put a measured speedup off by {percent(floor)}: no error can be far below."
    else:
        yield "Single repeats: how noisy a measured speedup is cannot be told."
    if found := control_error(result.sample.controls):
        yield (
            f"A/A controls, the baseline against itself, are off by {percent(found[0])} on average"
            f" and {percent(found[1])} at worst."
        )


def _worst_point(result: FitResult) -> str:
    data = result.sample.data
    off = np.zeros(len(data))
    for split, forecast in result.held_out(OURS, result.headline):
        off[split.test] = (forecast.speedup / data.speedup - 1.0)[split.test]
    place = int(np.argmax(np.abs(off)))
    return f"Worst at {_at(result, place)}: {off[place]:+.1%}."


def _comparison(result: FitResult) -> str:
    theirs = result.scores.get(MOESD, {})
    if not theirs:
        reason = result.no_moesd or "too few points once some are held out"
        return f"MoESD's ten-parameter model was left out: {reason}."
    found = theirs.get(result.headline)
    shared = [(result.scores[OURS][kind], other) for kind, other in theirs.items()]
    nearer = sum(_mape(ours) < _mape(other) for ours, other in shared)
    each = (
        f"MoESD's ten parameters on the same points are off by {percent(_mape(found))}"
        f" ({percent(found.errors['speedup'].worst)} at worst)"
        if found
        else "MoESD's ten parameters need more points for this"
    )
    return f"{each}; ours is nearer in {nearer} of {len(shared)} ways of holding out."


def _regret(result: FitResult) -> str:
    texts = []
    for name, kinds in result.scores.items():
        if found := kinds.get(result.headline):
            regret = found.regret
            texts.append(f"{percent(regret.mean)} by {name} (worst {percent(regret.worst)})")
    return (
        f"Deploying the gamma they recommend instead of the best measured one loses"
        f" {' and '.join(texts)} of the speedup; part of it is noise, since the best measured one is"
        " best partly by chance."
    )


def _coverage(result: FitResult) -> Iterator[str]:
    share = result.scores[OURS][result.headline].coverage
    if share is None:
        return
    verdict = "; it is too narrow here" if share < 0.95 - _WIDE else ""
    yield f"The 95 % interval of one measurement held {share:.0%} of the held-out speedups{verdict}."


def _open(result: FitResult) -> Iterator[str]:
    """What the data cannot separate, of both models."""
    parts = step_identifiability(result.fit)
    unknown = [f"{part} {name}" for part, found in parts.items() for name in found.from_prior]
    alike = [f"{part} {a} from {b}" for part, found in parts.items() for a, b in found.inseparable]
    if unknown:
        yield f"The data say little about {', '.join(unknown)}: their priors speak."
    if alike:
        yield f"They do not tell apart {', '.join(alike)}."
    if result.moesd is not None:
        known = result.moesd.identifiable
        yield (
            f"Of the ten directions of MoESD's parameters the speedups fix {known.seen_directions};"
            f" {', '.join(known.inseparable) or 'none'} stay open, and its bounds rather than the"
            f" data hold {', '.join(known.at_limit) or 'none'}."
        )


def _worst_regime(result: FitResult) -> str:
    found = regime_residuals(result)
    worst = max(found, key=lambda regime: found[regime].rms)
    missing = [regime.value for regime in Regime if regime not in found]
    text = (
        f"Target forwards are predicted worst with {worst.value}: rms {percent(found[worst].rms)}"
    )
    return f"{text}; no point had {' or '.join(missing)}." if missing else f"{text}."


def _advice(result: FitResult) -> str:
    ours = result.scores[OURS]
    worst = max(ours, key=lambda kind: _mape(ours[kind]))
    place = _widest(result)
    return (
        f"To improve: {_MEASURE[worst]} (the error is largest, {percent(_mape(ours[worst]))}, holding"
        f" out {worst.value}); the interval is widest at {_at(result, place)}."
    )


def _widest(result: FitResult) -> int:
    """The point whose prediction is least sure when it is held out."""
    widths = np.zeros(len(result.sample.data))
    for split, forecast in result.held_out(OURS, result.headline):
        if forecast.low is not None and forecast.high is not None:
            widths[split.test] = np.log(forecast.high / forecast.low)[split.test]
    return int(np.argmax(widths))


def _at(result: FitResult, place: int) -> str:
    m = result.sample.measured[place]
    top_k = f" top_k={m.top_k}" if m.top_k else ""
    return f"B={m.point.batch_size} gamma={m.point.gamma}{top_k}"


def _mape(found: Scores) -> float:
    return found.errors["speedup"].mape if found.errors else math.nan
