"""The analytic engine: its records carry what the step model says, through the whole pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from analysis.heading import labels
from moesd_dist.build import make_engine
from moesd_dist.config import EngineConf, EngineKind
from moesd_dist.engines.analytic import AnalyticEngine
from moesd_dist.engines.analytic_model import model_of, unconditional_rates
from moesd_dist.hardware import hardware_named, model_named
from moesd_dist.models.counts import counts_of
from moesd_dist.records import (
    Device,
    DraftMethod,
    LayoutSpec,
    Measurement,
    Protocol,
    SdSpec,
    SimulationSpec,
    SweepPoint,
    WorkloadSpec,
)
from moesd_dist.records.serial import outcome_from_plain, to_plain
from moesd_dist.simulation import simulation_spec
from moesd_dist.specs import model_spec
from moesd_dist.sweep.driver import InlineExecutor
from moesd_dist.sweep.grid import expand
from moesd_dist.sweep.grouping import groups
from moesd_dist.sweep.pairing import LoadLimit
from moesd_dist.sweep.statistics import metrics
from moesd_dist.theory.steps.fit import fit_steps
from moesd_dist.theory.steps.model import Grid
from moesd_dist.theory.steps.saved import dump_fit
from moesd_dist.tracking.labels import outcome_tags, point_params
from tests.theory.known_steps import measured

TARGET, DRAFT = (model_spec(model_named(name)) for name in ("qwen2_57b_a14b", "qwen2_0_5b"))
RATES = (0.9, 0.8)  # of the second position and of all later ones


def on(hardware: str, noise: float = 0.0) -> SimulationSpec:
    return simulation_spec(hardware_named(hardware), EngineConf(EngineKind.analytic, noise=noise))


def a_point(**changes: object) -> SweepPoint:
    return replace(
        SweepPoint(
            engine="analytic",
            target=TARGET,
            workload=WorkloadSpec(
                name="random", prompt_tokens_min=100, prompt_tokens_max=300, output_tokens=400
            ),
            batch_size=16,
            gamma=4,
            sd=SdSpec(method=DraftMethod.draft_model, draft=DRAFT, synthetic_acceptance=RATES),
            hardware="A800",
            device=Device.cuda,
            layout=LayoutSpec(tp_size=2),
            protocol=Protocol(repeats=2),
            simulation=on("A800"),
        ),
        **changes,  # type: ignore[arg-type]
    )


def grid_of(point: SweepPoint) -> Grid:
    """The point alone."""
    return Grid(
        batch_size=point.batch_size,
        gamma=point.gamma,
        top_k=point.top_k or 8,
        context_tokens=200.0 + point.workload.output_tokens / 2,
    )


def swept(*points: SweepPoint) -> list[Measurement]:
    """SD points alone, measured in groups with their baselines, as every engine is."""
    every = [member for point in points for member in expand(point, {"gamma": [point.gamma]})]
    executor = InlineExecutor(make_engine, lambda _: LoadLimit())
    outcomes = [o for arrival in executor.run(groups(every, ())) for o in arrival.outcomes]
    assert {type(o) for o in outcomes} == {Measurement}
    return [o for o in outcomes if isinstance(o, Measurement) and o.point.gamma]


def engine(point: SweepPoint) -> AnalyticEngine:
    assert point.simulation is not None
    return AnalyticEngine(
        target=point.target,
        draft=point.sd.draft,
        simulation=point.simulation,
        hardware=point.hardware,
        layout=point.layout,
    )


@pytest.mark.parametrize("batch_size", [1, 7, 16, 100, 600])
@pytest.mark.parametrize("gamma", [1, 4, 20])
def test_a_measurement_derives_what_the_model_says(batch_size: int, gamma: int) -> None:
    point = a_point(batch_size=batch_size, gamma=gamma)
    (found,) = swept(point)
    assert point.simulation is not None
    model = model_of(TARGET, DRAFT, point.simulation, tp_size=2)
    times = model.round_seconds(grid_of(point))
    length = 1 + sum(unconditional_rates(RATES, gamma))
    derived = metrics(found)
    assert derived["speedup"] == pytest.approx(times.speedup(length / (gamma + 1)), rel=1e-3)
    assert derived["target_efficiency"] == pytest.approx(times.target_efficiency, rel=1e-9)
    assert derived["acceptance_length"] == pytest.approx(length, rel=1e-4)
    assert derived["activated_experts"] == pytest.approx(times.verify_experts, rel=2e-3)
    assert derived["speedup_eq4"] == pytest.approx(derived["speedup"], rel=1e-9)
    assert derived["mean_context"] == 400.0


def test_a_whole_array_of_points_is_the_points_one_by_one() -> None:
    point = a_point()
    assert point.simulation is not None
    model = model_of(TARGET, DRAFT, point.simulation, tp_size=2)
    sizes = np.array([1, 16, 64])
    together = model.round_seconds(Grid(batch_size=sizes, gamma=4, top_k=8, context_tokens=400.0))
    single = [model.round_seconds(grid_of(replace(point, batch_size=b))) for b in sizes.tolist()]
    assert together.round_s == pytest.approx([float(times.round_s) for times in single])


@pytest.mark.parametrize(
    ("rates", "gamma", "expected"),
    [
        pytest.param((), 0, (), id="nothing drafted"),
        pytest.param((0.5,), 3, (0.5, 0.25, 0.125), id="one rate for all positions"),
        pytest.param((0.9, 0.5), 3, (0.9, 0.45, 0.225), id="the last rate serves the others"),
        pytest.param((0.9, 0.5), 1, (0.9,), id="more rates than positions"),
    ],
)
def test_conditional_rates_become_shares_of_rounds(
    rates: tuple[float, ...], gamma: int, expected: tuple[float, ...]
) -> None:
    assert unconditional_rates(rates, gamma) == pytest.approx(expected)


def test_everything_written_says_that_it_was_simulated() -> None:
    (found,) = swept(a_point())
    tags = outcome_tags(found)
    assert (tags["source"], tags["moesd.source"], tags["moesd.weights"]) == ("simulated",) * 2 + ("none",)  # fmt: skip
    assert point_params(found.point)["source"] == "simulated"
    assert "simulated" in found.device_name
    assert labels([found]) == ["SIMULATED", "SYNTHETIC ACCEPTANCE"]


def test_a_measured_point_says_that_it_was_measured() -> None:
    point = a_point(engine="transformers", simulation=None)
    assert point_params(point)["source"] == "measured"
    assert point_params(point)["predicted_from"] == "nothing: measured"


def test_a_record_survives_its_journey_as_json() -> None:
    (found,) = swept(a_point())
    back = outcome_from_plain(to_plain(found))
    assert back == found
    assert back.point.point_id == found.point.point_id


def test_what_is_predicted_from_is_part_of_the_identity() -> None:
    fit = SimulationSpec(fit="digest", fit_path="/here")
    ids = {a_point(simulation=s).point_id for s in (on("A800"), on("H800"), on("A800", 0.1), fit)}
    assert len(ids) == 4
    moved = a_point(simulation=replace(fit, fit_path="/there"))
    assert moved.point_id == a_point(simulation=fit).point_id


def test_repeats_are_equal_without_noise_and_scatter_alike_each_time_with_it() -> None:
    point = a_point()
    assert engine(point).measure(point, 0) == engine(point).measure(point, 1)
    noisy = a_point(simulation=on("A800", noise=0.05), protocol=Protocol(repeats=20))
    seconds = [engine(noisy).measure(noisy, repeat).seconds for repeat in range(200)]
    assert seconds[3] == engine(noisy).measure(noisy, 3).seconds
    assert np.std(np.log(seconds)) == pytest.approx(0.05, rel=0.2)


def test_lookup_drafts_cost_nothing_but_the_round() -> None:
    lookup = SdSpec(method=DraftMethod.ngram, synthetic_acceptance=(0.8,))
    (found,) = swept(a_point(sd=lookup))
    assert metrics(found)["draft_s"] == 0.0
    assert metrics(found)["reject_s"] == pytest.approx(5.43e-3)


def test_fewer_experts_per_token_wake_fewer_experts() -> None:
    full, half = swept(a_point(batch_size=4), a_point(batch_size=4, top_k=4))
    assert (full.top_k, half.top_k) == (8, 4)
    assert half.activated_experts < full.activated_experts


def test_a_model_larger_than_the_memory_is_infeasible_with_both_byte_counts() -> None:
    alone = a_point(layout=LayoutSpec())
    found = engine(alone).infeasible(alone)
    assert found is not None
    assert found.bytes_needed > 114e9 > found.bytes_available == 80e9
    assert "1xA800" in found.reason
    assert engine(a_point()).infeasible(a_point()) is None
    crowd = a_point(batch_size=100_000)
    assert engine(crowd).infeasible(crowd) is not None


@pytest.fixture
def fit_file(tmp_path: Path) -> Callable[..., Path]:
    """A fit of known step times, said to be of these models."""

    def write(**counts: object) -> Path:
        models = {"target": counts_of(TARGET), "draft": counts_of(DRAFT)} | counts
        fit = fit_steps(measured(), **models)  # type: ignore[arg-type]
        file = tmp_path / "fit.json"
        file.write_text(dump_fit(fit, sweep="known"))
        return file

    return write


def test_a_saved_fit_predicts_as_it_did_when_it_was_saved(fit_file: Callable[..., Path]) -> None:
    conf = EngineConf(EngineKind.analytic, fit=str(fit_file()))
    point = a_point(simulation=simulation_spec(hardware_named("cuda"), conf))
    fit = fit_steps(measured(), target=counts_of(TARGET), draft=counts_of(DRAFT))
    (found,) = swept(point)
    expected = fit.model.round_seconds(grid_of(point))
    assert metrics(found)["target_verify_s"] == pytest.approx(expected.target_verify_s, rel=1e-6)
    assert "fit" in found.device_name
    assert asdict(on("A800"))["fit"] == ""
