"""The analytic engine on ranks that share experts: what the model says, through the whole pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moesd_dist.config import Conf, EngineConf, EngineKind, FiguresConf, HardwareConf
from moesd_dist.engines.analytic_ranks import links_of, ranks_model
from moesd_dist.hardware import device_figures, hardware_named, model_named
from moesd_dist.models.counts import counts_of
from moesd_dist.records import (
    Device,
    DraftMethod,
    LayoutSpec,
    SdSpec,
    SimulationSpec,
    SweepPoint,
)
from moesd_dist.records.serial import outcome_from_plain, to_plain
from moesd_dist.simulation import simulation_spec, with_simulations
from moesd_dist.specs import model_spec
from moesd_dist.sweep.adaptive.observations import step_data
from moesd_dist.sweep.statistics import metrics
from moesd_dist.theory.counts import NO_MODEL
from moesd_dist.theory.expert_parallel.decomposition import efficiency_parts
from moesd_dist.theory.expert_parallel.dispatch import Dispatch
from moesd_dist.theory.expert_parallel.ranks_fit import SharedTerms, shared_model
from moesd_dist.theory.expert_parallel.step import EpGrid
from moesd_dist.theory.steps.fit import fit_steps
from moesd_dist.validate import check_points
from tests.engines.test_analytic import (
    RATES,
    TARGET,
    a_point,
    engine,
    model_of,
    swept,
    unconditional_rates,
)

LOOKUP = SdSpec(method=DraftMethod.ngram)
V3 = model_spec(model_named("deepseek_v3"))


def layout(ranks: int, **changes: object) -> LayoutSpec:
    return replace(LayoutSpec(dp_size=ranks, ep_size=ranks), **changes)  # type: ignore[arg-type]


def on(hardware: str, shared: LayoutSpec, **settings: float) -> SimulationSpec:
    conf = EngineConf(EngineKind.analytic, **settings)  # type: ignore[arg-type]
    return simulation_spec(hardware_named(hardware), conf, shared)


def over(ranks: int, hardware: str = "H800", **changes: object) -> SweepPoint:
    shared = layout(ranks)
    point = a_point(layout=shared, hardware=hardware, simulation=on(hardware, shared))
    return replace(point, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("ranks", "batch_size"), [(2, 16), (8, 100), (16, 600), (64, 7)])
def test_a_measurement_derives_what_the_model_says(ranks: int, batch_size: int) -> None:
    point = over(ranks, batch_size=batch_size)
    (found,) = swept(point)
    assert point.simulation is not None
    step = model_of(point.target, point.sd.draft, point.simulation, tp_size=1)
    times = ranks_model(step, point.layout, point.simulation).round_seconds(
        EpGrid(batch_size=batch_size, gamma=4, top_k=8, context_tokens=400.0, ranks=ranks)
    )
    derived = metrics(found)
    length = 1 + sum(unconditional_rates(RATES, 4))
    assert derived["speedup"] == pytest.approx(float(times.speedup(length / 5)), rel=1e-3)
    assert derived["target_efficiency"] == pytest.approx(float(times.target_efficiency), rel=1e-9)
    assert derived["activated_experts"] == pytest.approx(
        float(times.verify_work.activated_experts), rel=2e-3
    )
    work = times.verify_work.experts
    assert derived["load_imbalance"] == pytest.approx(float(work.load_imbalance), rel=1e-3)
    assert derived["max_rank_activated_experts"] == pytest.approx(
        float(work.activated_max), rel=1e-3
    )
    assert derived["communication_share"] == pytest.approx(
        float(times.communication_share), rel=1e-6
    )
    assert derived["communication_s"] == pytest.approx(float(times.verify.communication_s))
    parts = efficiency_parts(times.decode, times.verify)
    for name in ("experts", "imbalance", "communication", "rest"):
        loss = derived.get(f"te_loss_{name}", 0.0)
        assert loss == pytest.approx(float(getattr(parts, name)), abs=1e-9)
    assert found.ranks == ranks


def test_a_record_of_many_ranks_stays_small_and_survives_its_journey() -> None:
    (found,) = swept(over(512, batch_size=4096))
    assert len(str(to_plain(found))) < 20_000
    assert outcome_from_plain(to_plain(found)) == found
    assert "512xH800, simulated" in found.device_name


def test_memory_is_asked_of_each_rank() -> None:
    at_8_bits = replace(V3, dtype="float8_e4m3fn")
    few, enough = (over(ranks, "H200", target=at_8_bits, batch_size=64) for ranks in (2, 16))
    refused = engine(few).infeasible(few)
    assert refused is not None
    assert "each rank needs" in refused.reason
    assert engine(enough).infeasible(enough) is None
    # Sequences are shared out as well.
    crowd = over(16, "H200", target=at_8_bits, batch_size=200_000)
    assert engine(crowd).infeasible(crowd) is not None


def test_what_one_rank_never_uses_is_no_part_of_its_identity() -> None:
    fields = {name for name, _ in on("H800", LayoutSpec()).device}
    assert not {name for name in fields if name.startswith(("inter_", "devices_"))}
    alone, hidden = (on("H800", LayoutSpec(), hidden_share=share) for share in (0.0, 0.5))
    assert alone == hidden
    shared = {name for name, _ in on("H800", layout(2)).device}
    assert shared - fields == {"inter_link_bytes_per_s", "inter_link_latency_s", "devices_per_node"}


def test_hidden_traffic_is_seen_in_no_second() -> None:
    open_, half = (
        swept(over(32, simulation=on("H800", layout(32), hidden_share=share)))[0]
        for share in (0.0, 0.5)
    )
    first, second = metrics(open_), metrics(half)
    assert second["communication_s"] == pytest.approx(0.5 * first["communication_s"])
    assert second["speedup"] != first["speedup"]


@pytest.mark.parametrize(
    ("shared", "ranks_per_node"),
    [
        pytest.param(layout(4), 4, id="one node holds them"),
        pytest.param(layout(16), 8, id="as few nodes as hold them"),
        pytest.param(layout(16, nodes=4), 4, id="as many nodes as the layout says"),
    ],
)
def test_ranks_lie_on_nodes(shared: LayoutSpec, ranks_per_node: int) -> None:
    figures = device_figures(hardware_named("H100"))
    assert links_of(figures, shared, "H100").ranks_per_node == ranks_per_node


def test_a_rack_of_one_domain_needs_no_other_link() -> None:
    rack = device_figures(hardware_named("GB200_NVL72"))
    links = links_of(rack, layout(64), "GB200_NVL72")
    board = links_of(device_figures(hardware_named("B200")), layout(64), "B200")
    assert links.all_to_all_s(1e7, 64) < 0.1 * board.all_to_all_s(1e7, 64)


@pytest.mark.parametrize(
    ("hardware", "shared", "says"),
    [
        pytest.param("H100", layout(32, nodes=2), "layout.nodes=4", id="more than a node has"),
        pytest.param("L40", layout(8, nodes=2), "no inter_link_bytes_per_s", id="no way out"),
    ],
)
def test_ranks_without_a_link_are_refused(hardware: str, shared: LayoutSpec, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        on(hardware, shared)


def test_a_processor_has_no_link_until_one_is_given() -> None:
    figures = {"flops": 1e12, "bytes_per_s": 4e10, "memory_bytes": 1e11, "clock_hz": 2e9}
    free = HardwareConf(figures=FiguresConf(**figures, link_bytes_per_s=1e15, link_latency_s=1e-12))
    conf = EngineConf(EngineKind.analytic)
    with pytest.raises(ValueError, match="hardware cpu has no link between ranks"):
        simulation_spec(free, conf, layout(2))
    given = replace(free, figures=FiguresConf(**figures, link_bytes_per_s=1e9, link_latency_s=1e-4))
    assert simulation_spec(given, conf, layout(2)).device


def test_a_dense_target_has_nothing_to_share() -> None:
    dense = model_spec(model_named("opt_30b"))
    points = [replace(over(2), target=dense, sd=SdSpec(), gamma=0)]
    conf = Conf(hardware=hardware_named("H800"), engine=EngineConf(EngineKind.analytic))
    with pytest.raises(ValueError, match="opt_30b is dense, so ranks have no experts"):
        with_simulations(points, conf)


def test_hiding_traffic_is_an_assumption_of_predictions() -> None:
    with pytest.raises(ValueError, match="are for predictions; use engine=analytic"):
        EngineConf(EngineKind.transformers, hidden_share=0.5)
    with pytest.raises(ValueError, match="must lie between"):
        EngineConf(EngineKind.analytic, hidden_share=1.5)


def test_a_fit_of_one_rank_is_not_taken_for_several(tmp_path: Path) -> None:
    (file := tmp_path / "fit.json").write_text("{}")
    conf = EngineConf(EngineKind.analytic, fit=str(file))
    with pytest.raises(ValueError, match=r"engine\.fit knows no links, 2 ranks"):
        simulation_spec(hardware_named("H800"), conf, layout(2))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"layout": LayoutSpec(dp_size=4)}, "dp_size = ep_size", id="DP alone"),
        pytest.param(
            {"layout": layout(4, tp_size=2, ep_size=8)}, "with tp_size 1", id="TP beside EP"
        ),
        pytest.param({"layout": layout(4, eplb=True)}, "knows no expert", id="moving experts"),
        pytest.param({"layout": layout(4), "device": Device.cpu}, "", id="a processor with links"),
    ],
)
def test_layouts_are_checked_before_anything_runs(changes: dict[str, object], says: str) -> None:
    points = [replace(over(4), **changes)]  # type: ignore[arg-type]
    if not says:
        return check_points(points)
    with pytest.raises(ValueError, match=says):
        check_points(points)
    return None


def test_kernels_differ_in_what_they_send() -> None:
    point = over(16, batch_size=512)
    assert point.simulation is not None
    step = model_of(point.target, point.sd.draft, point.simulation, tp_size=1)
    names = ("", "deepep_low_latency", "allgather_reducescatter")
    models = [
        ranks_model(step, replace(point.layout, all2all_backend=n), point.simulation) for n in names
    ]
    assert [m.dispatch for m in models] == list(Dispatch)
    grid = EpGrid(batch_size=512, gamma=4, top_k=8, context_tokens=400.0, ranks=16)
    once, each, _ = (float(m.target_seconds(grid, 5.0).communication_s) for m in models)
    assert once < each  # four experts a rank: some tokens have two of them there


def test_a_fit_of_one_rank_and_of_several_predicts_more_of_them() -> None:
    """From records to a fit and back: the links' figures are its calibration."""
    links = links_of(device_figures(hardware_named("H800")), layout(8), "H800")
    points = [
        over(ranks, batch_size=batch, gamma=gamma, sd=replace(LOOKUP, synthetic_acceptance=RATES))
        for ranks in (2, 4, 8)
        for gamma in (1, 4)
        for batch in (8, 32, 128, 512)
    ]
    data = step_data(swept(*points), across_ranks=True)
    assert sorted(set(data.ranks)) == [2, 4, 8]
    terms = SharedTerms(cost=links)
    fit = fit_steps(data, target=counts_of(TARGET), draft=NO_MODEL, shared=terms)
    grid = EpGrid(batch_size=64, gamma=3, top_k=8, context_tokens=400.0, ranks=np.array([2, 4, 8]))
    found = shared_model(fit.model, fit.parts["target"].values, terms).round_seconds(grid)
    assert points[0].simulation is not None
    step = model_of(TARGET, None, points[0].simulation, tp_size=1)
    truth = ranks_model(step, layout(8), points[-1].simulation).round_seconds(grid)  # type: ignore[arg-type]
    assert found.target_efficiency == pytest.approx(truth.target_efficiency, rel=0.02)
    assert found.verify.total_s == pytest.approx(truth.verify.total_s, rel=0.03)


def test_a_fit_across_ranks_takes_no_other_layout() -> None:
    points = swept(over(2), a_point())
    with pytest.raises(ValueError, match="a fit across ranks is of one rank"):
        step_data(points, across_ranks=True)
