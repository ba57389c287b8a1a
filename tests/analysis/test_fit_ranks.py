"""`python -m analysis.fit` of points on one rank and on several: links come out, or one line says why not."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moesd_dist import calibrations
from moesd_dist.config import Conf, EngineConf, EngineKind
from moesd_dist.hardware import hardware_named
from moesd_dist.records import LayoutSpec, Measurement, Role
from moesd_dist.records.calibration import (
    ALL_GATHER,
    ALL_TO_ALL,
    COUNTS,
    Calibration,
    CollectiveTimes,
    RankRates,
)
from moesd_dist.simulation import with_simulations
from moesd_dist.theory.expert_parallel.collectives import COUNT_BYTES, Link, Links
from moesd_dist.theory.expert_parallel.measured_links import Dearer
from moesd_dist.theory.expert_parallel.ranks_fit import CrowdedModel, SharedTerms
from moesd_dist.theory.expert_parallel.round_parts import EpGrid, Packing
from moesd_dist.theory.expert_parallel.step import EpModel
from moesd_dist.theory.steps.model import Grid
from moesd_dist.theory.steps.saved import about, load_fit
from tests.analysis.conftest import BASE, SD
from tests.analysis.test_fit_cli import (  # noqa: F401
    CONTEXT,
    KNOWN,
    Cli,
    Keep,
    cli,
    empty_database,
    fit_runs,
    keep,
    measurement,
)

RANKS, BATCH_SIZES, GAMMAS = (1, 2, 4), (4, 8, 16, 32, 64), (1, 3)
LINK = Link(latency_s=2e-4, bytes_per_s=1e9)
DEARER = 1.25
PACKING = Packing(layer_s=2e-4, row_s=1e-6)
SHARES = {1: 1.0, 2: 1.0, 4: 0.5}  # of its cores' work that a rank has among so many
MEMORY = {1: 1.0, 2: 0.8, 4: 0.3}  # of its bytes/s


def slowdown(ranks: np.ndarray) -> np.ndarray:
    return np.array([1.0 / SHARES[int(n)] for n in ranks.ravel()]).reshape(ranks.shape)


def over(ranks: int, **more: object) -> LayoutSpec:
    return LayoutSpec(dp_size=ranks, ep_size=ranks, **more) if ranks > 1 else LayoutSpec()  # type: ignore[arg-type]


def sweep(layouts: Sequence[LayoutSpec], model: EpModel) -> list[Measurement]:
    base = replace(BASE, role=Role.sd, sd=SD, hardware="cpu", top_k=8)
    points = [
        replace(base, batch_size=b, gamma=g, layout=layout)
        for layout in layouts
        for g in GAMMAS
        for b in BATCH_SIZES
    ]
    found = []
    for p in points:
        grid = EpGrid(
            batch_size=p.batch_size, gamma=p.gamma, top_k=8, context_tokens=CONTEXT, ranks=p.layout.dp_size
        )  # fmt: skip
        found.append(measurement(p, times=model.round_seconds(grid).whole))
    return found


def shared(*layouts: LayoutSpec) -> list[Measurement]:
    """Links are dearer than calibrated, and ranks share two cores and their memory."""
    cost = Dearer(cost=Links(intra=LINK, ranks_per_node=8), factor=DEARER)
    terms = SharedTerms(memory={n: MEMORY[n] / SHARES[n] for n in RANKS})
    model = CrowdedModel(step=KNOWN, cost=cost, packing=PACKING, slowdown=slowdown, terms=terms)
    return sweep(layouts or tuple(map(over, RANKS)), model)


def timed(collective: str, ranks: int, sizes: Sequence[int]) -> CollectiveTimes:
    seconds = tuple(LINK.latency_s + size / LINK.bytes_per_s for size in sizes)
    return CollectiveTimes(
        collective=collective, ranks=ranks, nodes=1, row_bytes=tuple(sizes), seconds=seconds, low_s=seconds, high_s=seconds
    )  # fmt: skip


def calibrated(folder: Path, ranks: Sequence[int] = (2, 4), threads: int = 1) -> str:
    """As jobs.calibrate writes it; the argument that names it."""
    sizes = [64 * 4**step for step in range(9)]
    rates = [
        RankRates(
            ranks=n, nodes=1, host="h", read_bytes_per_s=1e10 * MEMORY[n], gemm_flops=1e11, kernel_s=1e-3 / SHARES[n]
        )
        for n in (1, *ranks)
    ]  # fmt: skip
    found = Calibration(
        measured="2026-01-01T00:00:00+00:00",
        threads=threads,
        collectives=tuple(timed(ALL_TO_ALL, n, sizes) for n in ranks),
        counts=tuple(timed(COUNTS, n, [int(COUNT_BYTES * (n - 1))]) for n in ranks),
        rates=tuple(rates),
    )
    calibrations.write(found, folder / "ranks.json")
    return "calibration=ranks.json"


def test_points_on_several_ranks_give_links_and_packing(
    cli: Cli,  # noqa: F811
    keep: Keep,  # noqa: F811
    tmp_path: Path,
) -> None:
    keep("ranks", shared())
    code, out, err = cli("sweep=ranks", calibrated(tmp_path), "bootstrap=20")
    assert (code, err) == (0, "")
    assert "Links, 1, 2, 4 ranks together: collectives take 1.2" in out
    assert "MoESD's ten-parameter model was left out: it has no term for links" in out
    for row in ("link_scale", "pack_layer_s", "pack_row_s", "a whole number of ranks"):
        assert row in out
    text = (tmp_path / "here" / "fit.json").read_text()
    said, fit = about(text), load_fit(text)
    target = fit.parts["target"]
    for name, value in (("link_scale", DEARER), ("pack_layer_s", 2e-4), ("pack_row_s", 1e-6)):
        low, high = target.interval(name)
        assert low < value < high
    assert target.values["link_scale"] == pytest.approx(DEARER, rel=0.1)
    assert said["bootstrap"]["target"]["link_scale"][0] < DEARER
    assert said["held_out"]["ranks"]["speedup"]["mape"] < 0.05
    assert (said["ranks"], said["layout"]["dp_size"]) == ([1, 2, 4], 1)
    at = Grid(batch_size=8.0, gamma=2.0, top_k=8.0, context_tokens=CONTEXT)
    alone, truth = fit.model.round_seconds(at), KNOWN.round_seconds(at)
    assert alone.target_verify_s == pytest.approx(truth.target_verify_s, rel=0.05)
    [run] = fit_runs(tmp_path)
    assert run.data.params["ranks"] == "1, 2, 4"
    assert run.data.metrics["target.link_scale.low"] < DEARER


def test_the_saved_fit_is_of_one_rank_to_the_engine_that_predicts(
    cli: Cli,  # noqa: F811
    keep: Keep,  # noqa: F811
    tmp_path: Path,
) -> None:
    keep("ranks", shared())
    assert cli("sweep=ranks", "points=12")[0] == 0
    engine = EngineConf(EngineKind.analytic, fit=str(tmp_path / "here" / "fit.json"))
    conf = Conf(hardware=hardware_named("cpu"), engine=engine)
    point = replace(BASE, engine="analytic", hardware="cpu", gamma=3, role=Role.sd, sd=SD)
    [found] = with_simulations([point], conf)
    assert found.simulation is not None
    assert found.simulation.fit
    with pytest.raises(ValueError, match="knows no links, 2 ranks"):
        with_simulations([replace(point, layout=over(2))], conf)


def test_without_a_calibration_one_link_is_fitted(
    cli: Cli,  # noqa: F811
    keep: Keep,  # noqa: F811
    tmp_path: Path,
) -> None:
    keep("ranks", sweep(list(map(over, RANKS)), EpModel(step=KNOWN, cost=Links(intra=LINK, ranks_per_node=8))))  # fmt: skip
    code, out, err = cli("sweep=ranks")
    assert (code, err) == (0, "")
    assert "without calibration=FILE: one link with" in out
    values = load_fit((tmp_path / "here" / "fit.json").read_text()).parts["target"].values
    assert values["link_latency_s"] == pytest.approx(LINK.latency_s, rel=0.1)
    assert values["link_bytes_per_s"] == pytest.approx(LINK.bytes_per_s, rel=0.3)


def test_layouts_asked_for_by_themselves_know_no_links(cli: Cli, keep: Keep) -> None:  # noqa: F811
    keep("ranks", shared())
    code, out, _ = cli("sweep=ranks", "each=layouts", "points=6")
    assert code == 0
    assert out.count("Fitted to 6 of 10 points") == 3
    assert "link_" not in out


@pytest.mark.parametrize(
    ("measured", "arguments", "says"),
    [
        pytest.param(
            shared, lambda _: ["calibration=none.json"], "none.json is no calibration", id="no file"
        ),
        pytest.param(
            shared,
            lambda folder: [calibrated(folder, (2,))],
            r"knows \(ranks, nodes\) \[\(2, 1\)\].*\(4, 1\) is asked for: calibrate that",
            id="a layout that was not calibrated",
        ),
        pytest.param(
            lambda: shared(over(1)),
            lambda folder: [calibrated(folder)],
            "no points of several ranks.*leave it away",
            id="one rank alone",
        ),
        pytest.param(
            shared,
            lambda folder: [calibrated(folder), "each=layouts"],
            r"with those of one here \(each=layouts\); leave it away",
            id="layouts by themselves",
        ),
        pytest.param(
            shared,
            lambda folder: [calibrated(folder, threads=2)],
            "ranks with 2 threads, the points have 1",
            id="other threads",
        ),
        pytest.param(
            lambda: shared(over(1), over(2), over(2, nodes=2)),
            lambda _: [],
            "2 layouts of 2 ranks.*each=layouts",
            id="one number of ranks twice",
        ),
        pytest.param(
            lambda: shared(over(2), over(4, all2all_backend=ALL_GATHER)),
            lambda _: [],
            "one layout.all2all_backend.*each=layouts",
            id="two ways to send",
        ),
        pytest.param(
            lambda: shared(over(1), over(2, redundant_experts=4)),
            lambda _: [],
            "2 ranks have 4 redundant ones.*each=layouts",
            id="replicas",
        ),
        pytest.param(
            lambda: shared(over(2), replace(over(4), tp_size=2)),
            lambda _: [],
            "tp_size 1 and dp_size = ep_size",
            id="tensor parallel ranks",
        ),
    ],
)
def test_what_cannot_be_fitted_across_ranks_is_one_line(
    cli: Cli,  # noqa: F811
    keep: Keep,  # noqa: F811
    tmp_path: Path,
    measured: Callable[[], list[Measurement]],
    arguments: Callable[[Path], list[str]],
    says: str,
) -> None:
    keep("bad", measured())
    code, out, err = cli("sweep=bad", *arguments(tmp_path))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1, err
    assert re.search(says, err), err
