"""A whole device held out: each predicted from another's fit, moved by the ratio of their figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

from analysis.fitting.models import figures_of
from analysis.fitting.results import FitResult
from analysis.fitting.settings import Each
from analysis.fitting.tables import percent
from moesd_dist.theory.steps.model import Grid
from moesd_dist.theory.steps.settings import expected_at
from moesd_dist.theory.validation.scores import Errors, errors


def elsewhere(results: Sequence[FitResult], each: Each) -> Iterator[str]:
    """A sentence for each pair of devices: the error, or why it cannot be told."""
    if len(results) < 2:
        yield f"A whole {each.value.removesuffix('s')} cannot be held out: the sweeps have one."
        return
    if each is Each.layouts:
        yield "A whole layout cannot be held out: fitted by itself it knows no links."
        return
    for one, other in permutations(results, 2):
        names = f"{other.sample.name} predicted from {one.sample.name}"
        try:
            found = errors_elsewhere(one, other)
        except ValueError as error:
            yield f"{names}: cannot be done: {error}."
            continue
        yield f"{names}: speedups are off by {percent(found.mape)}, at worst {percent(found.worst)}."


def errors_elsewhere(one: FitResult, other: FitResult) -> Errors:
    """Of the other's speedups, without any of its points; ValueError for unknown figures.

    Nor can links be moved: a device's figures do not say how its ranks are joined.
    """
    if one.sample.ranks != [1] or other.sample.ranks != [1]:
        raise ValueError("links between ranks are fitted where they are and not carried elsewhere")
    here, there = (figures_of(r.sample.measured[0], "") for r in (one, other))
    model = one.fit.model.moved(
        memory=there.bytes_per_s / here.bytes_per_s, compute=there.flops / here.flops
    )
    ours, theirs = one.sample, other.sample
    expected = expected_at(ours.data, ours.settings, theirs.data, theirs.settings)
    grid = Grid(
        batch_size=theirs.data.batch_size,
        gamma=theirs.data.gamma,
        top_k=theirs.data.top_k,
        context_tokens=expected.context_tokens,
    )
    return errors(model.round_seconds(grid).speedup(expected.sigma), theirs.data.speedup)
