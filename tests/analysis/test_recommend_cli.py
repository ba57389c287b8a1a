"""`python -m analysis.recommend` from a database to a schedule; bad input is one line."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from analysis import recommend
from moesd_dist import config, specs
from moesd_dist.config import CONF
from moesd_dist.models.counts import counts_of
from moesd_dist.one_sweep import Job, points_of
from moesd_dist.records import LayoutSpec, ModelSource, ModelSpec
from moesd_dist.sweep.adaptive.observations import step_data
from moesd_dist.theory.steps.fit import fit_steps
from moesd_dist.theory.steps.saved import dump_fit
from moesd_dist.workloads.acceptance_points import profile_of, setting_of
from tests.analysis.conftest import SD, control
from tests.analysis.known_sweep import BATCH_SIZES, CONTEXT, KNOWN, store, sweep

Cli = Callable[..., tuple[int, str, str]]
ADAPTIVE = "moesd_dist sweep=adaptive sweep.workload=[stdlib_code,stdlib_prose]"
HUB = ModelSpec(name="hub", source=ModelSource.checkpoint, location="some/hub-name")
COMMAND = "moesd_dist +exp=quickstart sweep.repeats=3 hardware.threads=1"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Filled once: the tables of MLflow take a second or two."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    uri = f"sqlite:///{path}"
    known = sweep()
    store(uri, "known", known, COMMAND)
    store(uri, "slow", sweep(slower=4.0))
    store(uri, "vague", sweep(noise=0.1), COMMAND)
    store(uri, "adaptive", sweep(noise=0.1), f"{ADAPTIVE} sweep.adaptive.budget=8")
    store(uri, "two", [*known, *sweep(top_k=4)])
    store(uri, "parallel", sweep(layout=LayoutSpec(dp_size=2)))
    store(uri, "hub", sweep(target=HUB))
    store(uri, "simulated", sweep(engine="analytic"))
    store(uri, "coin", sweep(sd=replace(SD, synthetic_acceptance=(0.7,))))
    store(uri, "control", [control(8)])
    return path


@pytest.fixture
def cli(database, tmp_path, monkeypatch, capfd) -> Cli:
    """In this process and a folder with the database: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(database, tmp_path / "mlflow.db")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["analysis.recommend", "out=here", *arguments])
        GlobalHydra.instance().clear()
        code = 0
        try:
            recommend.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capfd.readouterr()

    return run


def saved(name: str) -> object:
    return json.loads((Path("here") / name).read_text())


def rows() -> list[dict[str, str]]:
    return list(csv.DictReader((Path("here") / "recommendation.csv").read_text().splitlines()))


def true_best(batch_size: int) -> int:
    """Of the gammas measured, by the model that made the sweep."""
    m = {p.point.gamma: p for p in sweep((batch_size,), noise=0.0)}
    speedups = {0: 1.0} | {g: p.paired_speedups()[0] for g, p in m.items()}
    best = max(speedups.values())
    return min(g for g, s in speedups.items() if s * 1.02 >= best)


def test_a_sweep_becomes_the_schedule_that_its_law_has(cli):
    code, out, err = cli("sweep=known")
    assert (code, err) == (0, "")
    table = saved("vllm.json")["num_speculative_tokens_per_batch_size"]
    gammas = {b: k for first, last, k in table for b in range(first, last + 1)}
    assert sorted(gammas) == list(range(1, 33))
    found = {int(row["batch_size"]): row for row in rows()}
    for size in BATCH_SIZES:
        if found[size]["decided"] == "true":
            assert gammas[size] == true_best(size), size
    assert sum(row["decided"] == "true" for row in found.values()) > 16
    assert "What limits you:" in out
    assert out.startswith(Path("here/report.txt").read_text())
    assert set(saved("sglang.json")) == {str(first) for first, _, _ in table}


def test_sd_that_never_pays_is_switched_off(cli):
    code, out, err = cli("sweep=slow")
    assert (code, err) == (0, "")
    assert saved("vllm.json") is None
    assert "0 (off)" in out
    assert "SD off; B=8 gamma=" in out


def test_a_doubt_names_its_point_and_a_command_that_composes(cli):
    code, out, _ = cli("sweep=vague")
    assert code == 0
    assert "undecided" in out
    (line,) = [line for line in out.splitlines() if line.startswith("python -m moesd_dist")]
    arguments = shlex.split(line)[3:]
    assert "+exp=quickstart" in arguments
    assert "sweep.repeats=10" in arguments
    assert "sweep.repeats=3" not in arguments
    GlobalHydra.instance().clear()
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", overrides=[*arguments, "output=x"])
    points = points_of([Job(conf=specs.conf_from(composed))])
    assert {p.batch_size for p in points} < set(range(1, 33))
    assert all(p.protocol.repeats == 10 for p in points)
    assert "sweep=[vague,vague_next]" in out


def test_after_an_adaptive_sweep_the_command_is_an_ordinary_grid_of_the_asked_points(cli):
    _, out, _ = cli("sweep=adaptive")
    (line,) = [line for line in out.splitlines() if line.startswith("python -m moesd_dist")]
    arguments = shlex.split(line)[3:]
    assert not [a for a in arguments if "adaptive" in a and not a.startswith("sweep.name=")]
    assert {"sweep.top_k=[8]", "sweep.workload=[stdlib_code]"} < set(arguments)
    given = dict(a.split("=", 1) for a in arguments)
    GlobalHydra.instance().clear()
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        conf = specs.conf_from(compose("config", overrides=[*arguments, "output=x"]))
    asked = {(b, g) for b in json.loads(given["sweep.batch_size"]) for g in json.loads(given["sweep.gamma"])}  # fmt: skip
    assert conf.sweep.adaptive is None
    assert {(p.batch_size, p.gamma) for p in points_of([Job(conf=conf)]) if p.gamma} == asked


def test_several_sweeps_are_one_basis(cli):
    _, out, _ = cli("sweep=[known,vague]")
    assert "12 measured points" in out  # the same points: the sweep named last counts


def test_a_target_whose_size_is_unknown_is_judged_at_measured_batch_sizes(cli):
    code, out, _ = cli("sweep=hub")
    assert code == 0
    assert "No model of step times: the size of some/hub-name" in out
    assert [int(row["batch_size"]) for row in rows()] == list(BATCH_SIZES)
    table = saved("vllm.json")["num_speculative_tokens_per_batch_size"]
    assert table[0][0] == 1
    assert table[-1][1] == 32


def test_a_data_parallel_layout_gets_one_gamma_and_the_reason(cli):
    code, out, _ = cli("sweep=parallel")
    assert code == 0
    assert "could choose different ones and wait for each other in a collective" in out
    assert "One gamma for all:" in out
    assert not Path("here/vllm.json").exists()
    assert not Path("here/sglang.json").exists()
    gamma = saved("vllm_static.json")["num_speculative_tokens"]
    assert {int(row["gamma"]) for row in rows()} == {gamma}


@pytest.mark.parametrize(
    ("name", "label"), [("simulated", "SIMULATED"), ("coin", "SYNTHETIC ACCEPTANCE")]
)
def test_what_is_not_real_says_so(cli, name, label):
    _, out, _ = cli(f"sweep={name}")
    assert f"*** {label} ***" in out
    assert f"{label}: " in out
    assert f"*** {label} ***" in Path("here/report.txt").read_text()


def test_a_saved_fit_recommends_where_nothing_was_measured(cli):
    points = sweep()
    fit = fit_steps(step_data(points), target=KNOWN.target, draft=counts_of(SD.draft))
    profile = profile_of(points)
    setting = dict(setting_of(points[0])) | {
        "conditional": list(profile.conditional),
        "tried": list(profile.tried),
        "mean_context": CONTEXT,
    }
    about = {"gammas": [1, 3], "batch_sizes": [1, 8, 32], "draft": "embedded_draft"}
    Path("fit.json").write_text(dump_fit(fit, **about, settings=[setting], labels=[]))
    code, out, err = cli("fit=fit.json", "batch_sizes=[1,8,64]")
    assert (code, err) == (0, "")
    assert "predicted from fit.json" in out
    assert "Outside B=1..32 nothing was measured" in out
    assert "would be left" in out
    assert saved("vllm.json")["model"] == "embedded_draft"


@pytest.mark.parametrize(
    ("top_k", "says"), [(8, "with top_k=8 of the fitted pair"), ("none", "of the fitted pair")]
)
def test_a_saved_fit_asks_for_points_in_words_and_knows_dense_targets(cli, top_k, says):
    points, target = sweep(noise=0.1), KNOWN.target
    if top_k == "none":
        points = [replace(m, point=replace(m.point, top_k=None), top_k=0, num_experts=0) for m in points]  # fmt: skip
        target = counts_of(SD.draft)
    fit = fit_steps(step_data(points), target=target, draft=counts_of(SD.draft))
    setting = {"top_k": top_k, "conditional": [0.7, 0.7], "tried": [900, 600], "mean_context": 60.0}
    about = {"gammas": [1, 3], "batch_sizes": [1, 8, 32], "draft": "embedded_draft"}
    Path("fit.json").write_text(dump_fit(fit, **about, settings=[setting], labels=[]))
    code, out, err = cli("fit=fit.json")
    assert (code, err) == (0, "")
    assert "python -m moesd_dist" not in out
    assert says in out


@pytest.mark.parametrize("basis", ["sweep=known", "fit=fit.json"])
def test_a_synthetic_acceptance_file_labels_the_title(cli, basis):
    fit = fit_steps(step_data(sweep()), target=KNOWN.target, draft=counts_of(SD.draft))
    setting = {"top_k": 8, "mean_context": CONTEXT}
    about = {"gammas": [1, 3], "batch_sizes": [1, 8], "settings": [setting]}
    Path("fit.json").write_text(dump_fit(fit, **about))
    coin = {"format": "moesd-acceptance", "convention": "conditional", "rates": [0.7], "synthetic": True}  # fmt: skip
    Path("coin.json").write_text(json.dumps(coin))
    _, out, err = cli(basis, "acceptance=coin.json")
    assert err == ""
    assert "*** SYNTHETIC ACCEPTANCE ***" in out


def test_simulated_points_are_called_so_in_every_file(cli):
    _, out, _ = cli("sweep=simulated")
    assert "12 simulated points" in out
    assert "saved here/vllm.simulated.json, of simulated points" in out
    assert {row["source"] for row in rows()} == {"simulated"}
    assert not Path("here/vllm.json").exists()


def test_another_acceptance_changes_the_choice(cli):
    Path("poor.yaml").write_text("{convention: conditional, rates: [0.05, 0.05, 0.05]}")
    code, out, err = cli("sweep=known", "acceptance=poor.yaml")
    assert (code, err) == (0, "")
    assert saved("vllm.json") is None
    assert "measured speedups are corrected for it" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param([], "give sweep=NAME", id="neither sweep nor fit"),
        pytest.param(["sweep=known", "fit=x"], "got both", id="both"),
        pytest.param(["sweep=none"], "no sweep 'none'", id="unknown sweep"),
        pytest.param(["sweep=control"], "no SD points in control", id="no SD"),
        pytest.param(["sweep=two"], "top_k 4 and 8; choose one, such as where.top_k=", id="two settings"),
        pytest.param(["sweep=two", "where.top_k=5"], "nothing was measured with top_k 5; there is top_k 4 and 8", id="none of them"),
        pytest.param(["sweep=[known,simulated]"], "simulated and measured points do not mix", id="mixed"),
        pytest.param(["sweep=parallel", "formats=[vllm]"], "no vllm schedule for dp_size 2", id="a schedule for DP"),
        pytest.param(["sweep=known", "layout.dp_size=8", "formats=[csv,sglang]"], "no sglang schedule for dp_size 8", id="DP by hand"),
        pytest.param(["sweep=known", "formats=[yaml]"], "got 'yaml'", id="unknown format"),
        pytest.param(["sweep=known", "confidence=1"], "confidence must lie between", id="too confident"),
        pytest.param(["sweep=known", "batch_sizes=[0]"], "batch_sizes must be at least 1", id="no batch"),
        pytest.param(["sweep=hub", "batch_sizes=[3]"], "only what was measured can be recommended", id="no model"),
        pytest.param(["sweep=known", "sweeep=x"], "'sweeep' not in", id="unknown key"),
        pytest.param(["sweep=known", "acceptance=/no"], "no acceptance file", id="no acceptance file"),
        pytest.param(["fit=/no"], "no saved fit '/no'", id="no fit"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(cli, arguments, says):
    code, out, err = cli(*arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert says in err
    assert not Path("here").exists()


def test_a_damaged_fit_is_one_line(cli):
    Path("fit.json").write_text("{}")
    code, _, err = cli("fit=fit.json")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "moesd-step-fit" in err
