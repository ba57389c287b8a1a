"""Steps of one rank and of several, fitted together: what went in comes out, links and packing too."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from moesd_dist.theory.expert_parallel.collectives import ExchangeCost, Link, Links
from moesd_dist.theory.expert_parallel.measured_links import Dearer
from moesd_dist.theory.expert_parallel.ranks_fit import (
    ALONE,
    CrowdedModel,
    SharedTerms,
    shared_model,
)
from moesd_dist.theory.expert_parallel.step import EpGrid, EpModel, Packing
from moesd_dist.theory.routing_law import UNIFORM
from moesd_dist.theory.steps.data import StepData
from moesd_dist.theory.steps.fit import StepFit, fit_steps
from moesd_dist.theory.steps.prediction import predict
from moesd_dist.theory.steps.saved import dump_fit, load_fit
from tests.theory.known_steps import DRAFT, MODEL, TARGET, measured

STEP = replace(MODEL, routing=UNIFORM)
LINKS = Links(
    intra=Link(latency_s=2e-4, bytes_per_s=1e9),
    inter=Link(latency_s=5e-4, bytes_per_s=4e8),
    ranks_per_node=4,
)
PACKING = Packing(layer_s=4e-4, row_s=2e-6)
PLACES = np.array(
    list(product((1, 2, 4, 8), (8,), (1, 3, 5), (1, 4, 8, 16, 32, 64, 128))), dtype=float
)
SCATTER = 0.01

_Floats = npt.NDArray[np.float64]


def grid_at(places: _Floats) -> EpGrid:
    ranks, top_k, gamma, batch = places.T
    return EpGrid(batch_size=batch, gamma=gamma, top_k=top_k, context_tokens=60.0, ranks=ranks)


def data_of(model: EpModel, places: _Floats = PLACES) -> StepData:
    """Measured with a scatter of 1 % in every value."""
    random = np.random.default_rng(0)
    times = model.round_seconds(grid_at(places)).whole
    ranks, top_k, gamma, batch = places.T
    group = np.unique(places[:, [0, 1, 3]], axis=0, return_inverse=True)[1].reshape(-1)

    def noisy(values: _Floats, *, shared: bool = False) -> _Floats:
        drawn = random.standard_normal(len(group))
        return values * np.exp(SCATTER * (drawn[group] if shared else drawn))

    plain = measured().take(np.zeros(len(places), dtype=int))
    return replace(
        plain,
        batch_size=batch,
        gamma=gamma,
        top_k=top_k,
        group=group.astype(float),
        ranks=ranks,
        target_decode_s=noisy(times.target_decode_s, shared=True),
        target_verify_s=noisy(times.target_verify_s),
        draft_step_s=noisy(times.draft_step_s),
        reject_s=noisy(times.reject_s),
        baseline_reject_s=noisy(times.baseline_reject_s, shared=True),
        decode_experts=times.decode_experts,
        verify_experts=times.verify_experts,
    )


def fitted(model: EpModel, cost: ExchangeCost | None) -> StepFit:
    return fit_steps(data_of(model), target=TARGET, draft=DRAFT, shared=SharedTerms(cost=cost))


@pytest.fixture(scope="module")
def truth() -> EpModel:
    return EpModel(step=STEP, cost=Dearer(cost=LINKS, factor=1.25), packing=PACKING)


@pytest.fixture(scope="module")
def calibrated(truth: EpModel) -> StepFit:
    """The calibration says a quarter less than the links took."""
    return fitted(truth, LINKS)


def test_links_that_cost_more_than_calibrated_are_found(calibrated: StepFit) -> None:
    target = calibrated.parts["target"]
    low, high = target.interval("link_scale")
    assert low < 1.25 < high
    assert target.values["link_scale"] == pytest.approx(1.25, rel=0.08)
    assert target.scatter == pytest.approx(SCATTER, rel=0.35)


def test_packing_is_found(calibrated: StepFit) -> None:
    target = calibrated.parts["target"]
    for name, value in (("pack_layer_s", 4e-4), ("pack_row_s", 2e-6)):
        low, high = target.interval(name)
        assert low < value < high


def test_the_rates_of_a_rank_come_out_as_well(calibrated: StepFit) -> None:
    places = PLACES[PLACES[:, 0] == 1]
    alone = EpModel(step=STEP, cost=LINKS).round_seconds(grid_at(places)).whole
    found = EpModel(step=calibrated.model, cost=LINKS).round_seconds(grid_at(places)).whole
    for name in ("target_decode_s", "target_verify_s", "draft_step_s", "reject_s"):
        assert getattr(found, name) == pytest.approx(getattr(alone, name), rel=0.05)


def test_twice_as_many_ranks_as_were_fitted_are_predicted(
    truth: EpModel, calibrated: StepFit
) -> None:
    grid = grid_at(np.array([(16, 8, g, b) for g in (1, 4) for b in (4, 32, 256)], dtype=float))
    terms = SharedTerms(cost=LINKS)
    found = shared_model(calibrated.model, calibrated.parts["target"].values, terms)
    ours, theirs = found.round_seconds(grid), truth.round_seconds(grid)
    assert ours.verify.total_s == pytest.approx(theirs.verify.total_s, rel=0.05)
    assert ours.target_efficiency == pytest.approx(theirs.target_efficiency, rel=0.03)
    predicted = predict(calibrated, grid, sigma=0.7, shared=terms)
    speedup = theirs.speedup(0.7)
    assert predicted.speedup == pytest.approx(speedup, rel=0.03)
    assert np.all((predicted.low_of_one < speedup) & (speedup < predicted.high_of_one))


def test_ranks_that_share_memory_are_no_dearer_links() -> None:
    """Both slow down a forward; how much memory leaves each other is measured apart."""
    terms = SharedTerms(cost=LINKS, memory={2: 0.8, 4: 0.5, 8: 0.3})
    crowded = CrowdedModel(step=STEP, cost=LINKS, packing=PACKING, terms=terms)
    data = data_of(crowded)
    told, untold = (
        fit_steps(data, target=TARGET, draft=DRAFT, shared=shared)
        for shared in (terms, SharedTerms(cost=LINKS))
    )
    assert told.parts["target"].values["link_scale"] == pytest.approx(1.0, rel=0.08)
    assert told.parts["target"].scatter == pytest.approx(SCATTER, rel=0.35)
    assert told.parts["draft"].scatter == pytest.approx(SCATTER, rel=0.35)
    assert untold.parts["target"].scatter > 2 * SCATTER
    grid = grid_at(PLACES[:60])
    ours = predict(told, grid, sigma=0.7, shared=terms)
    assert ours.speedup == pytest.approx(crowded.round_seconds(grid).speedup(0.7), rel=0.03)


def test_without_a_calibration_one_link_is_fitted() -> None:
    one_tier = Links(intra=Link(latency_s=3e-4, bytes_per_s=5e8), ranks_per_node=64)
    fit = fitted(EpModel(step=STEP, cost=one_tier), None)
    values = fit.parts["target"].values
    assert values["link_latency_s"] == pytest.approx(3e-4, rel=0.1)
    assert values["link_bytes_per_s"] == pytest.approx(5e8, rel=0.15)
    again = load_fit(dump_fit(fit))
    assert (
        shared_model(again.model, again.parts["target"].values, ALONE).cost
        == shared_model(fit.model, values, ALONE).cost
    )


def test_one_rank_is_fitted_as_ever() -> None:
    data = measured(scatter=0.02).take(np.arange(0, 80, 4))
    first, second = (
        fit_steps(data, target=TARGET, draft=DRAFT, **more)  # type: ignore[arg-type]
        for more in ({}, {"shared": SharedTerms(cost=LINKS)})
    )
    assert first.parts["target"].values == second.parts["target"].values
    assert "link_scale" not in first.parts["target"].names
    terms = SharedTerms(cost=LINKS)
    assert shared_model(first.model, first.parts["target"].values, terms).packing == Packing()
    with pytest.raises(ValueError, match="a fit of one rank knows no links"):
        shared_model(first.model, first.parts["target"].values, ALONE)


def test_a_point_of_a_rank_has_its_share_of_the_batch() -> None:
    data = data_of(EpModel(step=STEP, cost=LINKS), PLACES[:30])
    own = data.of_a_rank
    assert own.batch_size.tolist() == np.ceil(data.batch_size / data.ranks).tolist()
    others = [f.name for f in fields(StepData) if f.name != "batch_size"]
    assert all(np.array_equal(getattr(own, n), getattr(data, n)) for n in others)
