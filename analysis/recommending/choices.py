"""From speedups to gammas: one by batch size, or one for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from analysis.recommending.basis import Basis
from moesd_dist.theory.choices.decision import Rule
from moesd_dist.theory.choices.recommendation import Choice, StaticChoice, choose, static_choice


def choices_of(basis: Basis, rule: Rule) -> list[Choice]:
    """One a batch size, among the gammas that are known there."""
    found = basis.estimate
    choices = []
    for row, size in enumerate(found.batch_sizes):
        known = np.flatnonzero(np.isfinite(found.log_speedup[row]))
        gammas = [found.gammas[i] for i in known]
        covariance = found.covariance[row][np.ix_(known, known)]
        choices.append(choose(size, gammas, found.log_speedup[row, known], covariance, rule=rule))
    return choices


def static_of(basis: Basis, rule: Rule) -> tuple[StaticChoice, list[int]]:
    """One gamma for the measured batch sizes, each counted alike; without any, for all."""
    found = basis.estimate
    sizes = [b for b in basis.reference_sizes if b in found.batch_sizes] or list(found.batch_sizes)
    rows = np.array([found.batch_sizes.index(size) for size in sizes])
    known = np.flatnonzero(np.isfinite(found.log_speedup[rows]).all(axis=0))
    choice = static_choice(
        sizes,
        [found.gammas[i] for i in known],
        found.log_speedup[np.ix_(rows, known)],
        found.covariance[np.ix_(rows, known, known)],
        rule=rule,
    )
    return choice, sizes


def at_gamma(basis: Basis, static: StaticChoice) -> list[Choice]:
    """The static gamma at every batch size, as choices that are not free."""
    found, column = basis.estimate, basis.estimate.gammas.index(static.gamma)
    placed = []
    for row, size in enumerate(found.batch_sizes):
        alone = found.covariance[row, column, column].reshape(1, 1)
        choice = choose(size, [static.gamma], found.log_speedup[row, [column]], alone)
        placed.append(
            replace(
                choice,
                rivals=static.rivals,
                likeliest=static.likeliest,
                chance=static.chance,
                measure_next=static.measure_next,
            )
        )
    return placed


def geometric_mean(choices: Sequence[Choice], sizes: Sequence[int]) -> float:
    """Of the speedups chosen at these batch sizes."""
    chosen = {choice.batch_size: choice.speedup for choice in choices}
    return math.exp(fmean(math.log(chosen[size]) for size in sizes))
