"""Hundreds of ranks on paper: what the page claims of sweet spots, links and published points."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from analysis.ep_scale import __main__ as program
from analysis.ep_scale.exchange import exchange_points
from analysis.ep_scale.predicted import Predicted, predictions
from analysis.ep_scale.published import read_points
from analysis.ep_scale.scenario import INTERCONNECTS, TITLES, Products, Scenario, ep_model
from analysis.ep_scale.surface import (
    CONTEXT,
    RANKS,
    Surface,
    crossing,
    of_global,
    per_rank,
    sigma_of,
)
from moesd_dist import config, specs
from moesd_dist.config import CONF
from moesd_dist.engines.analytic import AnalyticEngine
from moesd_dist.one_sweep import Job, points_of
from moesd_dist.records import Measurement, Role, SweepPoint
from moesd_dist.sweep.statistics import metrics

BATCH = (1, 2, 4, 8, 16, 32, 64)
SCENARIOS = [
    pytest.param(model, hardware, id=f"{model} on {hardware}")
    for model in TITLES
    for hardware in INTERCONNECTS
]


@cache
def surface(model: str, hardware: str, gamma: int = 3, hidden_share: float = 0.0) -> Surface:
    shared = ep_model(Scenario(model=model, hardware=hardware), hidden_share=hidden_share)
    return per_rank(shared, gamma=gamma, batch=BATCH)


@pytest.mark.parametrize(("model", "hardware"), SCENARIOS)
def test_the_sweet_spot_of_b_per_rank_falls_as_ranks_are_added(model: str, hardware: str) -> None:
    spots = surface(model, hardware).sweet_spots
    assert spots == sorted(spots, reverse=True)
    assert spots[0] >= 8
    assert spots[-3:] == [1, 1, 1]


@pytest.mark.parametrize(("model", "hardware"), SCENARIOS)
def test_the_loss_of_one_sequence_a_rank_is_large_on_8_ranks_and_gone_on_64(
    model: str, hardware: str
) -> None:
    losses = dict(zip(RANKS, surface(model, hardware).loss_at_smallest, strict=True))
    assert losses[8] > 0.1
    assert losses[64] < 0.01


def test_more_ranks_flatten_the_hump_of_the_same_sequences_from_above() -> None:
    """The loss at small batches goes with the peak: the smallest batch itself gains little."""
    found = of_global(ep_model(Scenario()), gamma=3, ranks=(8, 256), batch=(1, 4, 16, 64))
    few, many = found.speedup
    assert few.max() > 1.3 * few[0]
    assert many.max() == pytest.approx(many[0], rel=0.01)
    assert few.max() - many.max() > 2.0 * (many[0] - few[0]) > 0.0


def test_a_rack_of_nvlink_spends_little_on_links_until_it_is_full() -> None:
    shares = surface("deepseek_v3", "GB200_NVL72").times.communication_share
    inside, beyond = (shares[RANKS.index(n)] for n in (64, 128))
    assert inside.max() < 0.1
    assert beyond[0] > 2.0 * inside[0]


def test_hidden_links_cost_nothing_and_leave_the_rest_as_it_is() -> None:
    bare, hidden = (surface("deepseek_v3", "H200", 1, share).times for share in (0.0, 1.0))
    assert not hidden.communication_share.any()
    np.testing.assert_allclose(
        hidden.verify.total_s, bare.verify.total_s - bare.verify.communication_s
    )


def test_faster_products_move_the_far_side_of_the_peak_and_not_the_near_one() -> None:
    slow = surface("deepseek_v3", "H200")
    fast = per_rank(ep_model(Scenario(products=Products.fast)), gamma=3, batch=BATCH)
    np.testing.assert_allclose(fast.speedup[:, 0][:4], slow.speedup[:, 0][:4], rtol=0.01)
    assert np.all(fast.speedup[:, -1] > 1.2 * slow.speedup[:, -1])


@pytest.mark.parametrize(
    ("values", "level", "expected"),
    [
        pytest.param([0.1, 0.3, 0.4], 0.2, 2.0, id="from the second on"),
        pytest.param([0.3, 0.1, 0.4], 0.2, 4.0, id="a dip in between does not count"),
        pytest.param([0.3, 0.3, 0.3], 0.2, 1.0, id="always"),
        pytest.param([0.3, 0.3, 0.1], 0.2, float("inf"), id="not at the end"),
    ],
)
def test_a_crossing_is_where_values_stay_above(
    values: list[float], level: float, expected: float
) -> None:
    assert crossing((1, 2, 4), np.array(values), level) == expected


def swept_points() -> list[SweepPoint]:
    """SD points of conf/exp/ep_scale.yaml."""
    GlobalHydra.instance().clear()
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        conf = specs.conf_from(compose("config", overrides=["+exp=ep_scale", "output=x"]))
    points = points_of([Job(conf=conf)])
    return [p for p in points if p.role is Role.sd and p.gamma]


def test_the_sweep_covers_one_to_256_sequences_a_rank_on_both_interconnects() -> None:
    points = swept_points()
    places = {
        (p.hardware, p.layout.dp_size, p.batch_size // p.layout.dp_size, p.gamma) for p in points
    }
    assert len(places) == len(points) == 2 * 7 * 9 * 2
    assert {each for _, _, each, _ in places} == {1 << n for n in range(9)}


@pytest.mark.parametrize(("ranks", "each"), [(8, 8), (64, 1), (512, 32)])
def test_the_sweep_and_the_analysis_predict_the_same(ranks: int, each: int) -> None:
    point = next(
        p
        for p in swept_points()
        if (p.hardware, p.gamma, p.layout.dp_size) == ("H200", 3, ranks)
        and p.batch_size == each * ranks
    )
    found = metrics(simulated(point))["speedup"]
    dense = per_rank(ep_model(Scenario()), gamma=3, ranks=[ranks], batch=[each], context=CONTEXT)
    assert found == pytest.approx(float(dense.speedup[0, 0]), rel=1e-3)


def simulated(point: SweepPoint) -> Measurement:
    assert point.simulation is not None
    engine = AnalyticEngine(
        target=point.target,
        draft=point.sd.draft,
        simulation=point.simulation,
        hardware=point.hardware,
        layout=point.layout,
    )
    repeats, baseline = ((engine.measure(p, 0),) for p in (point, point.baseline))
    experts, top_k = engine.routing(point)
    return Measurement(point=point, repeats=repeats, baseline=baseline, num_experts=experts, top_k=top_k)  # fmt: skip


@cache
def published() -> dict[str, list[Predicted]]:
    found: dict[str, list[Predicted]] = {}
    for predicted in predictions(read_points()):
        found.setdefault(predicted.point.name, []).append(predicted)
    return found


def test_two_sequences_a_rank_on_16_ranks_are_predicted_within_12_percent() -> None:
    near = [p for name, (p, *_) in published().items() if "EP16" in name]
    assert len(near) == 2
    assert all(-0.12 < p.error < 0.0 for p in near)


def test_large_batches_and_the_makers_own_figure_contradict_the_prediction() -> None:
    """Said on the page: both were measured well above what is predicted."""
    for name in ("SGLang, EP96", "DeepSeek, EP320"):
        (p,) = published()[name]
        assert p.error < -0.1
        assert p.high < p.point.speedup


def test_the_monotone_counter_example_is_a_hump_with_prefill_in_it() -> None:
    amd = published()["AMD, TP8"]
    alone = [p.speedup for p in amd]
    whole = [p.end_to_end for p in amd if p.end_to_end is not None]
    assert alone != sorted(alone, reverse=True)
    assert len(whole) == 7
    assert whole == sorted(whole, reverse=True)
    errors = [abs(w / p.point.speedup - 1.0) for w, p in zip(whole, amd, strict=True)]
    assert np.mean(errors) < 0.08
    assert max(errors) < 0.16
    assert amd[0].step_ms == pytest.approx(amd[0].point.step_ms, rel=0.05)


def test_where_acceptance_was_not_printed_it_is_assumed_by_rule() -> None:
    lengths = {p.name: p.assumed_length for p in read_points()}
    assert lengths["SGLang, EP16, window 3"] == 2.18
    assert lengths["SGLang, EP96"] == pytest.approx(1.85)
    assert lengths["AMD, TP8"] == 3.0
    assert sigma_of(1.0, 4) == 1.0


def test_the_links_are_taken_to_be_faster_than_deepep_found_them() -> None:
    errors = [p.error for p in exchange_points()]
    assert len(errors) == 6
    assert all(-0.5 < error < -0.1 for error in errors)


def test_the_program_writes_a_report_curves_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ep_scale", "--out", str(tmp_path / "out")])
    program.main()
    saved = [Path(line.removeprefix("saved ")) for line in capsys.readouterr().out.splitlines()]
    assert all(path.stat().st_size > 1000 for path in saved)
    assert {path.suffix for path in saved} == {".txt", ".csv", ".png"}
    assert (tmp_path / "out" / "report.txt").read_text().startswith("SIMULATED")
    curves = (tmp_path / "out" / "curves.csv").read_text().splitlines()
    assert "simulated" in curves[1]
