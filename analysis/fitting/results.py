"""Everything that a fit of one sample found: parameters, held-out errors, what stays open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.fitting.models import Models, models_of
from analysis.fitting.points import Sample
from analysis.fitting.settings import FitConf
from moesd_dist.theory.expert_parallel.ranks_fit import shared_model
from moesd_dist.theory.expert_parallel.round_parts import EpGrid
from moesd_dist.theory.moesd.fit import MoesdFit
from moesd_dist.theory.steps.data import StepData
from moesd_dist.theory.steps.fit import StepFit, fit_steps
from moesd_dist.theory.steps.model import Grid, RoundSeconds
from moesd_dist.theory.steps.uncertainty import Intervals, bootstrap
from moesd_dist.theory.validation.forecast import Forecast, Forecaster, step_forecaster
from moesd_dist.theory.validation.scores import HeldOut, Scores, cross_validate, scores
from moesd_dist.theory.validation.splits import Kind, Split, all_splits, strided_split

OURS, MOESD = "ours", "moesd"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitResult:
    """`fitted` are the places of the points behind `fit`; all of them unless fewer were asked for."""

    sample: Sample
    models: Models
    fitted: npt.NDArray[np.intp]
    fit: StepFit
    moesd: MoesdFit | None
    no_moesd: str
    held: Mapping[str, list[HeldOut]]  # by OURS and MOESD
    scores: Mapping[str, Mapping[Kind, Scores]]
    intervals: Intervals  # bootstrap; empty if none was asked for
    moesd_intervals: Mapping[str, tuple[float, float]]

    @property
    def headline(self) -> Kind:
        """The kind of split that the verdict is about: the first."""
        return next(iter(self.scores[OURS]))

    def round_seconds(self, grid: Grid, ranks: int) -> RoundSeconds:
        """By the fit, of one rank or of so many that share the experts."""
        if ranks == 1:
            return self.fit.model.round_seconds(grid)
        batch, gamma, top_k, context = grid.arrays()
        shared = shared_model(self.fit.model, self.fit.parts["target"].values, self.models.shared)
        return shared.round_seconds(
            EpGrid(batch_size=batch, gamma=gamma, top_k=top_k, context_tokens=context, ranks=ranks)
        ).whole

    def held_out(self, model: str, kind: Kind) -> list[tuple[Split, Forecast]]:
        return [(h.split, h.forecast) for h in self.held[model] if h.forecast and h.split.kind is kind]  # fmt: skip


def fit_sample(sample: Sample, conf: FitConf) -> FitResult:
    """ValueError if the points are too few to be fitted, or to be held out."""
    models, data = models_of(sample, conf), sample.data
    splits = _splits(data, conf)
    fitted = splits[0].train if conf.points else np.arange(len(data))
    train = data.take(fitted)
    fit = fit_steps(
        train,
        target=models.target,
        draft=models.draft,
        peaks=models.peaks,
        shared=models.shared,
    )
    moesd, no_moesd = _moesd(models, train)
    forecasters: dict[str, Forecaster] = {
        OURS: step_forecaster(models.target, models.draft, models.peaks, models.shared)
    }
    if moesd and models.moesd:
        forecasters[MOESD] = models.moesd.forecast
    held = {n: cross_validate(data, sample.settings, splits, f) for n, f in forecasters.items()}
    found = {name: scores(data, each) for name, each in held.items()}
    _check_validated(found[OURS], len(data))
    return FitResult(
        sample=sample,
        models=models,
        fitted=fitted,
        fit=fit,
        moesd=moesd,
        no_moesd=no_moesd,
        held=held,
        scores=found,
        intervals=_intervals(train, models, conf),
        moesd_intervals=_moesd_intervals(train, models, conf) if moesd else {},
    )


def _splits(data: StepData, conf: FitConf) -> list[Split]:
    if conf.points is None:
        return all_splits(data, seed=conf.seed)
    if conf.points >= len(data):
        raise ValueError(
            f"points must leave some to hold out, got {conf.points} of {len(data)};"
            " use fewer, or null for cross-validation"
        )
    return [strided_split(data, conf.points)]


def _moesd(models: Models, train: StepData) -> tuple[MoesdFit | None, str]:
    if models.moesd is None:
        return None, models.no_moesd
    try:
        return models.moesd.fit(train), ""
    except ValueError as error:
        return None, str(error)


def _intervals(train: StepData, models: Models, conf: FitConf) -> Intervals:
    if not conf.bootstrap:
        return {}
    return bootstrap(
        train,
        target=models.target,
        draft=models.draft,
        peaks=models.peaks,
        draws=conf.bootstrap,
        seed=conf.seed,
        shared=models.shared,
    )


def _moesd_intervals(
    train: StepData, models: Models, conf: FitConf
) -> Mapping[str, tuple[float, float]]:
    if not conf.bootstrap or models.moesd is None:
        return {}
    return models.moesd.bootstrap(train, draws=conf.bootstrap, seed=conf.seed)


def _check_validated(found: Mapping[Kind, Scores], points: int) -> None:
    if not found:
        raise ValueError(
            f"{points} points are too few to hold any out and fit the rest, and an error on fitted"
            " points says nothing; measure more"
        )
