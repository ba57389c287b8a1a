"""From points on one rank and a calibration to what points over several ranks will be, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from moesd_dist.models.expert_placement import placement_of
from moesd_dist.records import LayoutSpec, Measurement, SweepPoint
from moesd_dist.records.calibration import ALL_GATHER, Calibration
from moesd_dist.records.forecast import Estimate, PointForecast
from moesd_dist.sweep.validation.desk import Predictor
from moesd_dist.sweep.validation.evidence import Evidence, evidence_of
from moesd_dist.sweep.validation.terms import terms_of
from moesd_dist.theory.counts import ModelCounts
from moesd_dist.theory.expert_parallel.dispatch import Dispatch
from moesd_dist.theory.expert_parallel.foretelling import Basis, Foretelling
from moesd_dist.theory.expert_parallel.parts_fit import with_parts
from moesd_dist.theory.expert_parallel.popular_step import Routing, Table, fresh_share, simulated
from moesd_dist.theory.expert_parallel.round_parts import EpGrid
from moesd_dist.theory.steps.fit import StepFit, fit_steps
from moesd_dist.theory.steps.priors import Peaks
from moesd_dist.theory.steps.settings import acceptance_profile

_Repeats = npt.NDArray[np.intp]

_TEXTS = 12  # times that the repeats are drawn again


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What is known of the pair and its device without measuring."""

    target: ModelCounts
    draft: ModelCounts
    peaks: Peaks | None = None


def predictor_of(models: Models, *, seed: int) -> Predictor:
    return partial(_predict, models, seed)


def _predict(
    models: Models,
    seed: int,
    single: Sequence[Measurement],
    calibration: Calibration,
    points: Sequence[SweepPoint],
) -> tuple[PointForecast, ...]:
    evidence = evidence_of(single)
    fit = fit_steps(evidence.data, target=models.target, draft=models.draft, peaks=models.peaks)
    fit = with_parts(fit, evidence.parts, models.peaks)
    found: dict[str, PointForecast] = {}
    for layout in dict.fromkeys(p.layout for p in points):
        members = [p for p in points if p.layout == layout]
        basis = _basis(evidence, fit, calibration, members, seed)
        found |= {f.point_id: f for f in _forecasts(Foretelling(basis), members)}
    return tuple(found[p.point_id] for p in points)


def _basis(
    evidence: Evidence,
    fit: StepFit,
    calibration: Calibration,
    points: Sequence[SweepPoint],
    seed: int,
) -> Basis:
    """Of points of one layout."""
    data, layout = evidence.data, points[0].layout
    terms = terms_of(calibration, layout)
    rng = np.random.default_rng(seed)
    return Basis(
        fit=fit,
        acceptance=acceptance_profile(data),
        rounds=round(float(data.sequence_rounds.mean())),
        grid=EpGrid(
            batch_size=np.array([float(p.batch_size) for p in points]),
            gamma=np.array([float(p.gamma) for p in points]),
            top_k=float(evidence.top_k),
            context_tokens=float(np.average(data.context_tokens, weights=data.sequence_rounds)),
            ranks=float(layout.dp_size),
        ),
        cost=terms.cost,
        cost_spread=terms.spread,
        memory=terms.memory,
        compute=terms.compute,
        dispatch=_dispatch(layout),
        tables=tuple(_table(rng, evidence, points, text) for text in _texts(rng, evidence)),
    )


def _forecasts(found: Foretelling, points: Sequence[SweepPoint]) -> Iterator[PointForecast]:
    values, low, high = found.values, found.low, found.high
    for place, point in enumerate(points):
        estimates = (
            Estimate(
                name=name,
                value=float(at[place]),
                low=float(low[name][place]),
                high=float(high[name][place]),
            )
            for name, at in values.items()
            if np.isfinite(at[place])
        )
        yield PointForecast(
            point_id=point.point_id,
            ranks=point.layout.dp_size,
            nodes=point.layout.nodes,
            batch_size=point.batch_size,
            gamma=point.gamma,
            estimates=tuple(estimates),
        )


def _texts(rng: np.random.Generator, evidence: Evidence) -> Iterator[_Repeats]:
    """Repeats, each with its own text: all of them first, then as many drawn with replacement."""
    count = len(evidence.loads)
    yield np.arange(count)
    for _ in range(_TEXTS):
        yield rng.integers(0, count, size=count)


def _table(
    rng: np.random.Generator, evidence: Evidence, points: Sequence[SweepPoint], repeats: _Repeats
) -> Table:
    loads = evidence.loads[repeats].sum(axis=0)
    activated = _activated(evidence, repeats)
    routing = Routing(
        loads=loads,
        top_k=evidence.top_k,
        fresh_share=fresh_share(loads, evidence.top_k, activated),
        activated=activated,
    )
    placement = placement_of(points[0].layout, layers=loads.shape[0], num_experts=loads.shape[1])
    shapes = sorted({(p.batch_size, each) for p in points for each in (1, p.gamma + 1)})
    return {(s, placement.ranks): simulated(rng, routing, placement, s) for s in shapes}


def _activated(evidence: Evidence, repeats: _Repeats) -> Mapping[tuple[int, int], float]:
    """Means over the chosen repeats, of those that a point has."""
    found = {shape: n[repeats[repeats < len(n)]] for shape, n in evidence.activated.items()}
    return {shape: float(chosen.mean()) for shape, chosen in found.items() if chosen.size}


def _dispatch(layout: LayoutSpec) -> Dispatch:
    """As the transformers engine sends tokens."""
    return Dispatch.TO_ALL if layout.all2all_backend == ALL_GATHER else Dispatch.ONCE_A_RANK
