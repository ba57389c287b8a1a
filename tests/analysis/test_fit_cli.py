"""`python -m analysis.fit` from a database to files, a run and sentences; bad input is one line."""

from __future__ import annotations

import csv
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra

from analysis import fit as program
from moesd_dist import cpu_cache
from moesd_dist.models.counts import counts_of
from moesd_dist.records import LayoutSpec, Measurement, Repeat, Role, SweepPoint
from moesd_dist.theory.steps.model import Grid, RoundSeconds
from moesd_dist.theory.steps.saved import about, load_fit
from moesd_dist.tracking.mlflow import MlflowTracker
from moesd_dist.tracking.mlflow_runs import connect
from moesd_dist.tracking.provenance import Provenance, cpu_model
from tests.analysis.conftest import BASE, SD
from tests.theory.known_steps import MODEL

BATCH_SIZES, GAMMAS, TOP_K = (1, 2, 4, 8, 16, 32), (1, 3), (4, 8)
ROUNDS, REPEATS, CONTEXT, ALPHA, NOISE = 50, 3, 60.0, 0.8, 0.01
Cli = Callable[..., tuple[int, str, str]]
Keep = Callable[..., str]
KNOWN = replace(MODEL, target=counts_of(BASE.target), draft=counts_of(SD.draft))  # type: ignore[arg-type]


def measurement(
    point: SweepPoint,
    slower: float = 1.0,
    repeats: int = REPEATS,
    times: RoundSeconds | None = None,
) -> Measurement:
    """Every repeat takes what the known model says, or the given times, with noise of its own."""
    seed = [point.batch_size, point.gamma, point.top_k or 0, int(100 * slower)]
    random = np.random.default_rng(seed)
    grid = Grid(
        batch_size=point.batch_size, gamma=point.gamma, top_k=point.top_k, context_tokens=CONTEXT
    )
    times = KNOWN.round_seconds(grid) if times is None else times
    return Measurement(
        point=point,
        repeats=tuple(_repeat(point, times, slower, random) for _ in range(repeats)),
        baseline=tuple(_repeat(point.baseline, times, slower, random) for _ in range(repeats)),
        top_k=point.top_k or 0,
        num_experts=64,
        host=platform.node(),
        device_name=cpu_model(),
    )


def _repeat(
    of: SweepPoint, times: RoundSeconds, slower: float, random: np.random.Generator
) -> Repeat:
    def seconds(per_round: float) -> float:
        return ROUNDS * slower * float(per_round) * float(np.exp(NOISE * random.standard_normal()))

    forward_s, reject_s, experts = (
        (times.target_verify_s, times.reject_s, times.verify_experts)
        if of.gamma
        else (times.target_decode_s, times.baseline_reject_s, times.decode_experts)
    )
    target_s, rejection_s = seconds(float(forward_s)), seconds(float(reject_s))
    draft_s = seconds(of.gamma * float(times.draft_step_s)) if of.gamma else 0.0
    sequence_rounds = ROUNDS * of.batch_size
    accepted = tuple(round(sequence_rounds * ALPHA**i) for i in range(1, of.gamma + 1))
    return Repeat(
        seconds=target_s + draft_s + rejection_s,
        rounds=ROUNDS,
        tokens=sequence_rounds + sum(accepted),
        drafted=sequence_rounds * of.gamma,
        accepted=sum(accepted),
        accepted_per_position=accepted,
        sequence_rounds=sequence_rounds,
        draft_s=draft_s,
        target_s=target_s,
        reject_s=rejection_s,
        tokens_per_forward=of.gamma + 1,
        median_target_s=target_s / ROUNDS,
        median_draft_s=draft_s / ROUNDS,
        experts_seen=(round(1000 * float(experts)),),
        layer_forwards=1000,
        mean_context=CONTEXT,
    )


def points(**changes: object) -> list[SweepPoint]:
    base = replace(BASE, role=Role.sd, sd=SD, hardware="cpu")
    found = [
        replace(base, batch_size=b, gamma=g, top_k=k)
        for k in TOP_K
        for g in GAMMAS
        for b in BATCH_SIZES
    ]
    return [replace(p, **changes) for p in found]  # type: ignore[arg-type]


def grid(slower: float = 1.0, **changes: object) -> list[Measurement]:
    return [measurement(p, slower) for p in points(**changes)]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """In this process and an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOESD_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> tuple[int, str, str]:
        given = ["out=here", *([] if any("bootstrap" in a for a in arguments) else ["bootstrap=0"])]
        monkeypatch.setattr(sys, "argv", ["analysis.fit", *given, *arguments])
        GlobalHydra.instance().clear()
        code = 0
        try:
            program.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once and copied: MLflow's tables take a second or two."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def keep(tmp_path: Path, empty_database: Path) -> Keep:
    """Writes sweeps into the database that the program reads unless told otherwise."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")

    def sweep(name: str, measured: Iterable[Measurement]) -> str:
        kept = list(measured)
        tracker = MlflowTracker(
            f"sqlite:///{tmp_path}/mlflow.db", "moesd-dist", Provenance(command="test"), "a: 1\n"
        )
        tracker.open(f"id_of_{name}", name, [m.point for m in kept])
        for m in kept:
            tracker.record(m, {})
        tracker.close("finished")
        return name

    return sweep


@pytest.fixture
def calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of this processor, so that MoESD's bounds are known."""
    monkeypatch.setenv("MOESD_CACHE", str(tmp_path / "cache"))
    rates = cpu_cache.CpuRates(
        host=platform.node(),
        cpu_model=cpu_model(),
        threads=1,
        read_bytes_per_s=4e10,
        read_spread=0.01,
        gemm_flops=5e11,
        gemm_spread=0.01,
        memory_bytes=2**34,
        clock_hz=2.6e9,
    )
    cpu_cache.write(rates, cpu_cache.cache_file(1))


@pytest.mark.usefixtures("calibrated")
def test_a_sweep_becomes_a_model_with_honest_errors(cli: Cli, keep: Keep, tmp_path: Path) -> None:
    keep("known", grid())
    code, out, err = cli("sweep=known", "bootstrap=20")
    assert (code, err) == (0, "")
    assert "Held out, baselines at random" in out
    assert "MoESD's ten parameters on the same points are off by" in out
    names = {file.name for file in (tmp_path / "here").iterdir()}
    assert names >= {"fit.json", "errors.csv", "report.txt", "held_out.png", "steps.png", "curves.png"}  # fmt: skip
    assert (tmp_path / "here" / "report.txt").read_text() in out

    text = (tmp_path / "here" / "fit.json").read_text()
    said = about(text)
    assert said["sweeps"] == [{"name": "known", "sweep_id": "id_of_known"}]
    assert said["labels"] == []
    assert [s["top_k"] for s in said["settings"]] == ["4", "8"]
    assert said["settings"][0]["conditional"] == pytest.approx([ALPHA] * 3, rel=0.02)
    assert said["held_out"]["baselines"]["speedup"]["mape"] < 0.05
    at = Grid(batch_size=8.0, gamma=2.0, top_k=8.0, context_tokens=CONTEXT)  # was not measured
    saved, truth = load_fit(text).model.round_seconds(at), KNOWN.round_seconds(at)
    assert saved.target_verify_s == pytest.approx(truth.target_verify_s, rel=0.05)


@pytest.mark.usefixtures("calibrated")
def test_the_errors_are_a_file_and_metrics_by_what_was_held_out(
    cli: Cli, keep: Keep, tmp_path: Path
) -> None:
    keep("known", grid())
    assert cli("sweep=id_of_known")[0] == 0
    rows = list(csv.DictReader((tmp_path / "here" / "errors.csv").read_text().splitlines()))
    kinds = {"baselines", "points", "gamma", "top_k", "largest", "strided"}
    assert {(r["model"], r["held_out"]) for r in rows} == {(m, k) for m in ("ours", "moesd") for k in kinds}  # fmt: skip
    [run] = fit_runs(tmp_path)
    assert run.data.tags["moesd.source"] == "measured"
    assert run.data.tags["moesd.sweep_ids"] == "id_of_known"
    assert "mlflow.parentRunId" not in run.data.tags  # a sweep owns its children
    for name in ("ours.top_k.speedup.mape", "moesd.gamma.regret.mean", "target.bytes_per_s.low", "moesd.bias"):  # fmt: skip
        assert np.isfinite(run.data.metrics[name])


@pytest.mark.usefixtures("calibrated")
def test_so_many_strided_points_are_fitted_and_the_rest_is_held_out(cli: Cli, keep: Keep) -> None:
    keep("known", grid())
    code, out, _ = cli("sweep=known", "points=12")
    assert code == 0
    assert "Fitted to 12 of 24 points. Held out, all but strided points" in out


def test_without_figures_ours_is_fitted_alone_and_it_is_said_why(cli: Cli, keep: Keep) -> None:
    keep("known", grid())
    code, out, err = cli("sweep=known", "points=12")
    assert (code, err) == (0, "")
    assert "MoESD's ten-parameter model was left out: this CPU's figures with 1 threads" in out
    assert "run python -m jobs.calibrate_cpu --threads 1" in out


def test_controls_say_how_noisy_the_machine_is(cli: Cli, keep: Keep) -> None:
    control = replace(BASE, role=Role.control, top_k=8, hardware="cpu")
    keep("known", grid())
    keep("aa", [measurement(replace(control, batch_size=b)) for b in (1, 8)])
    code, out, _ = cli("sweep=[known,aa]", "points=12")
    assert code == 0
    assert "A/A controls, the baseline against itself, are off by" in out


def test_a_point_of_several_sweeps_is_that_of_the_sweep_named_last(cli: Cli, keep: Keep) -> None:
    keep("known", grid())
    keep("again", grid(slower=1.3))
    code, out, _ = cli("sweep=[known,again]", "points=12")
    assert code == 0
    assert "Fitted to 12 of 24 points" in out


def test_the_same_point_on_two_machines_is_two(cli: Cli, keep: Keep) -> None:
    keep("here", grid())
    keep("there", [replace(m, host="there") for m in grid(slower=1.3)])
    code, out, _ = cli("sweep=[here,there]", "each=devices", "points=12")
    assert code == 0
    assert out.count("Fitted to 12 of 24 points") == 2


def test_where_leaves_the_points_that_are_asked_for(cli: Cli, keep: Keep) -> None:
    keep("known", grid())
    code, out, _ = cli("sweep=known", "where.top_k=8")
    assert code == 0
    assert "Fitted to 12 of 12 points" in out
    assert "a whole top_k" not in out


def test_each_target_gets_a_fit_of_its_own(cli: Cli, keep: Keep, tmp_path: Path) -> None:
    other = replace(BASE.target, name="other", overrides=(("num_experts_per_tok", "8"),))
    keep("known", [*grid(), *grid(slower=1.1, target=other)])
    code, out, _ = cli("sweep=known", "each=targets", "points=12")
    assert code == 0
    assert out.count("Fitted to 12 of 24 points") == 2
    assert {f.name for f in (tmp_path / "here").iterdir()} == {"embedded", "other"}
    assert len(fit_runs(tmp_path)) == 2


def test_a_device_is_predicted_from_another_or_it_is_said_why_not(cli: Cli, keep: Keep) -> None:
    for hardware in ("H100", "H200"):
        keep(hardware, grid(hardware=hardware))
    code, out, _ = cli("sweep=[H100,H200]", "each=devices", "points=12")
    assert code == 0
    assert f"H200 on {platform.node()} predicted from H100 on {platform.node()}: speedups are" in out  # fmt: skip


def test_one_device_cannot_be_held_out(cli: Cli, keep: Keep) -> None:
    keep("known", grid())
    assert "A whole device cannot be held out: the sweeps have one." in cli("sweep=known", "each=devices", "points=12")[1]  # fmt: skip


def test_synthetic_acceptance_is_allowed_and_said(cli: Cli, keep: Keep, tmp_path: Path) -> None:
    keep("known", grid(sd=replace(SD, synthetic_acceptance=(ALPHA,))))
    code, out, _ = cli("sweep=known", "points=12")
    assert code == 0
    assert out.startswith("*** SYNTHETIC ACCEPTANCE ***")
    assert about((tmp_path / "here" / "fit.json").read_text())["labels"] == ["SYNTHETIC ACCEPTANCE"]


def test_a_simulated_sweep_is_not_called_measured(cli: Cli, keep: Keep, tmp_path: Path) -> None:
    keep("formulas", grid(engine="analytic"))
    _, out, _ = cli("sweep=formulas", "points=12")
    assert "instead of the best simulated one" in out
    errors = csv.DictReader((tmp_path / "here" / "errors.csv").read_text().splitlines())
    assert {row["source"] for row in errors} == {"simulated"}


def unpaired() -> list[Measurement]:
    first, *rest = grid()
    return [replace(first, baseline=first.baseline[:1]), *rest]


def two_layouts() -> list[Measurement]:
    return [*grid(), *grid(layout=LayoutSpec(tp_size=2))]


def simulated() -> list[Measurement]:
    return [*grid(), *grid(engine="analytic")]


def only(measured: Sequence[Measurement], **values: int) -> list[Measurement]:
    return [m for m in measured if all(getattr(m.point, n) == v for n, v in values.items())]


@pytest.mark.parametrize(
    ("measured", "arguments", "says"),
    [
        pytest.param(grid, [], "needs a sweep; give sweep=NAME", id="no sweep"),
        pytest.param(grid, ["sweep=nwon"], "no sweep 'nwon'", id="unknown sweep"),
        pytest.param(grid, ["sweep=bad", "swep=1"], "not in 'FitConf'", id="unknown key"),
        pytest.param(
            lambda: grid()[:3], ["sweep=bad"], "at least 4 points, got 3; measure", id="few points"
        ),
        pytest.param(
            lambda: grid()[:4], ["sweep=bad"], "too few to hold any out", id="none to hold out"
        ),
        pytest.param(
            lambda: only(grid(), batch_size=8), ["sweep=bad"], "only 8; growth", id="one batch size"
        ),
        pytest.param(
            two_layouts, ["sweep=bad"], "several layouts.*each=layouts", id="mixed layouts"
        ),
        pytest.param(
            lambda: [*grid(), *grid(target=replace(BASE.target, name="other"))],
            ["sweep=bad"],
            "several targets.*each=targets",
            id="mixed models",
        ),
        pytest.param(
            lambda: [*grid(), *(replace(m, host="b") for m in grid(hardware="cuda"))],
            ["sweep=bad"],
            "several devices.*each=devices",
            id="mixed devices",
        ),
        pytest.param(
            simulated,
            ["sweep=bad"],
            "24 simulated and 24 measured.*where.engine=analytic",
            id="simulated and measured",
        ),
        pytest.param(
            unpaired,
            ["sweep=bad"],
            "B=1 gamma=1 has 3 repeats and 1 of its baseline; measure it again",
            id="unpaired",
        ),
        pytest.param(
            lambda: [measurement(replace(p.baseline)) for p in points()],
            ["sweep=bad"],
            "needs SD points, bad has none; measure some gamma",
            id="baselines alone",
        ),
        pytest.param(
            grid, ["sweep=bad", "where.top_k=2"], "none with top_k 2; ask", id="nothing there"
        ),
        pytest.param(
            grid, ["sweep=bad", "points=24"], "must leave some to hold out", id="all points fitted"
        ),
        pytest.param(
            grid, ["sweep=bad", "bootstrap=5"], "bootstrap must be at least 20", id="few draws"
        ),
        pytest.param(grid, ["sweep=bad", "verified=2"], "verified", id="unknown variant"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(
    cli: Cli,
    keep: Keep,
    tmp_path: Path,
    measured: Callable[[], list[Measurement]],
    arguments: list[str],
    says: str,
) -> None:
    keep("bad", measured())
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1, err
    assert re.search(says, err), err
    assert not (tmp_path / "here" / "fit.json").exists()


def fit_runs(folder: Path) -> list:
    client = connect(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("moesd-dist")
    return list(client.search_runs([experiment.experiment_id], "tags.`moesd.kind` = 'fit'"))
