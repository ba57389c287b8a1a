"""Rounds that are kept: each point gets its own, and a sweep's draft lengths share an evaluation."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import product

import pytest

from moesd_dist.engines.analytic_model import model_of
from moesd_dist.engines.analytic_ranks import ranks_model
from moesd_dist.engines.analytic_rounds import LENGTHS, Rounds
from moesd_dist.records import LayoutSpec, SweepPoint
from moesd_dist.theory.expert_parallel.step import EpGrid
from moesd_dist.theory.steps.model import Grid
from tests.engines.test_analytic import a_point, engine, grid_of
from tests.engines.test_analytic_ranks import over


def a_sweep(point: SweepPoint) -> list[SweepPoint]:
    """Neighbours that differ in one thing alone, and lengths on both sides of an evaluation's end."""
    return [
        replace(
            point,
            batch_size=batch_size,
            gamma=gamma,
            top_k=top_k,
            workload=replace(point.workload, output_tokens=output_tokens),
        )
        for gamma, batch_size, top_k, output_tokens in product(
            (0, 1, LENGTHS - 1, LENGTHS, LENGTHS + 1), (16, 64), (None, 4), (400, 800)
        )
    ]


def verification_s(point: SweepPoint) -> float:
    """The formulas' answer for the point alone."""
    assert point.simulation is not None
    grid, layout = grid_of(point), point.layout
    step = model_of(point.target, point.sd.draft, point.simulation, tp_size=layout.tp_size)
    if layout.dp_size == 1:
        return float(step.round_seconds(grid).target_verify_s)
    places = {field.name: getattr(grid, field.name) for field in fields(grid)}
    shared = EpGrid(**places, ranks=layout.dp_size)
    model = ranks_model(step, layout, point.simulation)
    return float(model.target_seconds(shared, point.gamma + 1).total_s)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(a_point(), a_point(layout=LayoutSpec(tp_size=4)), id="devices of one rank"),
        pytest.param(over(8), over(16), id="ranks that share experts"),
    ],
)
def test_what_was_asked_before_changes_no_answer(one: SweepPoint, other: SweepPoint) -> None:
    asked = [engine(one), engine(other)]
    sweeps = list(zip(a_sweep(one), a_sweep(other), strict=True))
    for pair in sweeps + sweeps[::-1]:
        for used, point in zip(asked, pair, strict=True):
            found = used.measure(point, 0)
            assert found.median_target_s == pytest.approx(verification_s(point), rel=1e-12)
            assert found == engine(point).measure(point, 0)


def test_the_draft_lengths_of_a_batch_are_evaluated_together() -> None:
    grids: list[Grid] = []

    def evaluate(grid: Grid) -> list[float]:
        grids.append(grid)
        return [float(gamma) for gamma in grid.arrays()[1]]

    rounds = Rounds(8, evaluate)
    asked = [0, LENGTHS - 1, 3, LENGTHS, LENGTHS + 5, 3]
    assert [rounds.of(a_point(gamma=gamma)) for gamma in asked] == asked
    assert len(grids) == 2
