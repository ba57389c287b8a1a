"""What a fit is worth, in sentences: errors on held-out points against the noise, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

import numpy as np
from scipy import stats

from analysis.fitting.advice import at_place, fit_advice, mape
from analysis.fitting.links import links_found
from analysis.fitting.results import MOESD, OURS, FitResult
from analysis.fitting.tables import percent
from analysis.heading import MEANINGS, flagged, labels, source
from moesd_dist.records import Measurement
from moesd_dist.sweep.statistics import speedup
from moesd_dist.theory.validation.scores import noise_floor

_BY_CHANCE = 0.01  # of so few points inside a true 95 % interval: below it, it is too narrow


def fit_verdict(result: FitResult) -> list[str]:
    """Cautions first, then errors, comparison, regret, what is open, and what to measure."""
    measured = result.sample.measured
    sentences = [f"{name}: {MEANINGS[name]}." for name in labels(measured)]
    sentences += [f"Flagged: {text}." for text in flagged(measured)]
    sentences += [_headline(result), *_noise(result), _worst_point(result)]
    sentences += [_comparison(result), _regret(result), *_coverage(result)]
    return [*sentences, *links_found(result), _rates(result), *fit_advice(result)]


def _rates(result: FitResult) -> str:
    """Whether the device's figures held the target's rates: it changes the fit."""
    peaks = result.models.peaks
    if peaks is None:
        return (
            "The device's figures are not known here, so no rate of the target is held below its"
            " peak: fine for this device and these top_k, not for others; on a CPU run"
            " `python -m jobs.calibrate_cpu`, or name one with hardware=."
        )
    return (
        f"The target's rates are held below {peaks.bytes_per_s / 1e9:.4g} GB/s and"
        f" {peaks.flops / 1e12:.3g} TFLOP/s, the device's figures."
    )


def control_error(controls: Sequence[Measurement]) -> tuple[float, float] | None:
    """Mean and worst |A/A speedup - 1|; None without controls."""
    off = [abs(speedup(m) - 1.0) for m in controls]
    return (fmean(off), max(off)) if off else None


def _source(result: FitResult) -> str:
    return source(labels(result.sample.measured))


def _headline(result: FitResult) -> str:
    kind = result.headline
    found = result.scores[OURS][kind]
    blind, given = found.errors["speedup"], found.errors["speedup_given_sigma"]
    return (
        f"Fitted to {len(result.fitted)} of {len(result.sample.data)} points. Held out, {kind.value}:"
        f" predicted speedups are off by {percent(blind.mape)} on average and"
        f" {percent(blind.worst)} at worst with acceptance from the fitted points, by"
        f" {percent(given.mape)} with the {_source(result)} acceptance."
    )


def _noise(result: FitResult) -> Iterator[str]:
    floor = noise_floor(result.sample.data)
    if floor is not None:
        yield f"The repeats alone put a {_source(result)} speedup off by {percent(floor)}: no error can be far below."
    else:
        yield f"Single repeats: how noisy a {_source(result)} speedup is cannot be told."
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
    return f"Worst at {at_place(result, place)}: {off[place]:+.1%}."


def _comparison(result: FitResult) -> str:
    theirs = result.scores.get(MOESD, {})
    if not theirs:
        reason = result.no_moesd or "too few points once some are held out"
        return f"MoESD's ten-parameter model was left out: {reason}."
    found = theirs.get(result.headline)
    shared = [(result.scores[OURS][kind], other) for kind, other in theirs.items()]
    nearer = sum(mape(ours) < mape(other) for ours, other in shared)
    each = (
        f"MoESD's ten parameters on the same points are off by {percent(mape(found))}"
        f" ({percent(found.errors['speedup'].worst)} at worst)"
        if found
        else "MoESD's ten parameters need more points for this"
    )
    return f"{each}; ours is nearer in {nearer} of {len(shared)} ways of holding out."


def _regret(result: FitResult) -> str:
    texts, kind = [], _source(result)
    for name, kinds in result.scores.items():
        if found := kinds.get(result.headline):
            regret = found.regret
            texts.append(f"{percent(regret.mean)} by {name} (worst {percent(regret.worst)})")
    return (
        f"Deploying the gamma they recommend instead of the best {kind} one loses"
        f" {' and '.join(texts)} of the speedup; part of it is noise, since the best {kind} one is"
        " best partly by chance."
    )


def _coverage(result: FitResult) -> Iterator[str]:
    found = result.scores[OURS][result.headline]
    if (share := found.coverage) is None:
        return
    points = found.errors["speedup"].values
    chance = stats.binom.cdf(round(share * points), points, 0.95)
    verdict = "; it is too narrow here" if chance < _BY_CHANCE else ""
    yield f"The 95 % interval of one measurement held {share:.0%} of the held-out speedups{verdict}."
