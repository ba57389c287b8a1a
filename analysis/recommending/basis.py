"""What a recommendation stands on: measured points, a model of step times, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.fitting.models import figures_of
from analysis.heading import flagged, heading, labels
from analysis.load import SweepRun, load_run
from analysis.recommending.evidence import (
    at_acceptance,
    beyond,
    given_acceptance,
    observed,
    outside,
    with_given,
)
from analysis.recommending.limits import Limits, of_measured, of_model
from analysis.recommending.selection import one_setting, sd_points
from analysis.settings import RecommendConf
from moesd_dist.hardware import peaks_of
from moesd_dist.models.counts import counts_of
from moesd_dist.records import Measurement, SdSpec
from moesd_dist.sweep.adaptive.observations import step_data
from moesd_dist.theory.acceptance_profile import AcceptanceProfile
from moesd_dist.theory.choices.conditioning import Estimate, estimate, measured_only
from moesd_dist.theory.counts import NO_MODEL
from moesd_dist.theory.steps.fit import StepFit, fit_steps
from moesd_dist.theory.steps.model import Grid
from moesd_dist.theory.steps.prediction_errors import Place
from moesd_dist.theory.steps.priors import Peaks
from moesd_dist.workloads.acceptance_points import profile_of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """Predicts at any batch size and gamma."""

    fit: StepFit
    acceptance: AcceptanceProfile
    place: Place

    def limits(self, batch_size: int, gamma: int) -> Limits:
        grid = Grid(
            batch_size=batch_size,
            gamma=gamma,
            top_k=self.place.top_k,
            context_tokens=self.place.context_tokens,
        )
        seconds = self.fit.model.round_seconds(grid)
        return of_model(batch_size, self.acceptance.sigma(gamma), seconds)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Basis:
    """Speedups by batch size and gamma, and where they come from."""

    estimate: Estimate
    points: tuple[Measurement, ...]
    runs: tuple[SweepRun, ...]
    model: Model | None
    sd: SdSpec
    dp_size: int
    reference_sizes: tuple[
        int, ...
    ]  # measured, here or behind the fit; gammas for all are judged there
    title: tuple[str, ...]
    labels: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def measured(self) -> dict[int, set[int]]:
        """gammas that were measured, by batch size."""
        found: dict[int, set[int]] = {}
        for m in self.points:
            found.setdefault(m.point.batch_size, set()).add(m.point.gamma)
        return found

    def limits(self, batch_size: int, gamma: int) -> Limits | None:
        """Measured where that was measured, else the model's; None without a model."""
        for m in self.points:
            if (m.point.batch_size, m.point.gamma) == (batch_size, gamma):
                return of_measured(m)
        return self.model.limits(batch_size, gamma) if self.model else None


def of_sweeps(conf: RecommendConf, names: Sequence[str]) -> Basis:
    """Measured points with a model fitted to them, where one can be; ValueError if none are left."""
    runs = tuple(load_run(conf.uri, conf.experiment, name) for name in names)
    points = one_setting(sd_points(runs), conf.where.wanted())
    if conf.acceptance:
        acceptance, notes = given_acceptance(conf.acceptance)
    else:
        acceptance, notes = profile_of(points), []
    seen = (
        at_acceptance(observed(points), points, acceptance) if conf.acceptance else observed(points)
    )
    model, why = _fitted(points, acceptance)
    if model and _peaks(points[0]) is None:
        notes.append(
            "The device's figures are not known here, so the model's rates are not held below them."
        )
    if model is None:
        notes.append(f"No model of step times: {why}. So measured batch sizes alone are compared.")
        found = _restricted(measured_only(seen), conf)
    else:
        sizes = conf.batch_sizes or range(1, int(seen.batch_size.max()) + 1)
        gammas = sorted({0, *(conf.gammas or map(int, seen.gamma))})
        notes += [*beyond(acceptance, gammas), *outside(sizes, seen.batch_size)]
        found = estimate(model.fit, acceptance, sorted(set(sizes)), gammas, model.place, seen)
    first = points[0].point
    return Basis(
        estimate=found,
        points=tuple(points),
        runs=runs,
        model=model,
        sd=first.sd,
        dp_size=conf.layout.dp_size or first.layout.dp_size,
        reference_sizes=tuple(sorted({m.point.batch_size for m in points})),
        title=tuple(heading(points)),
        labels=with_given(labels(points), conf.acceptance),
        notes=(*notes, *(f"Flagged: {text}." for text in flagged(points))),
    )


def _fitted(
    points: Sequence[Measurement], acceptance: AcceptanceProfile
) -> tuple[Model | None, str]:
    """The model of these points; why there is none."""
    first = points[0].point
    draft = first.sd.draft
    try:
        data = step_data(points)
        fit = fit_steps(
            data,
            target=counts_of(first.target),
            draft=counts_of(draft) if draft else NO_MODEL,
            peaks=_peaks(points[0]),
        )
    except ValueError as error:
        return None, str(error).rstrip(".")
    place = Place(top_k=float(data.top_k[0]), context_tokens=float(data.context_tokens.mean()))
    return Model(fit=fit, acceptance=acceptance, place=place), ""


def _peaks(measured: Measurement) -> Peaks | None:
    """Of the device that the points are of, where its figures are known."""
    try:
        figures = figures_of(measured, "")
    except ValueError:
        return None
    return peaks_of(figures, tp_size=measured.point.layout.tp_size)


def _restricted(found: Estimate, conf: RecommendConf) -> Estimate:
    """To the batch sizes and gammas asked for, which must have been measured; gamma 0 stays."""
    sizes = sorted(set(conf.batch_sizes)) or list(found.batch_sizes)
    gammas = sorted({0, *conf.gammas}) if conf.gammas else list(found.gammas)
    if missing := [*(set(sizes) - set(found.batch_sizes)), *(set(gammas) - set(found.gammas))]:
        raise ValueError(
            f"without a model only what was measured can be recommended, not {missing}; there are "
            f"batch_sizes {list(found.batch_sizes)} and gammas {list(found.gammas)}"
        )
    rows = [found.batch_sizes.index(size) for size in sizes]
    columns = [found.gammas.index(gamma) for gamma in gammas]
    return Estimate(
        batch_sizes=tuple(sizes),
        gammas=tuple(gammas),
        log_speedup=found.log_speedup[np.ix_(rows, columns)],
        covariance=found.covariance[np.ix_(rows, columns, columns)],
    )
