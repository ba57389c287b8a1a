"""`--multirun` as a user gives it: all combinations are one sweep, with one run and one folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra

from moesd_dist.__main__ import main
from moesd_dist.multirun import overrides_first

Cli = Callable[..., tuple[int, str, str]]
REPOSITORY = Path(__file__).parents[1]
PREDICT = ("engine=analytic", "sd=synthetic", "hardware=A800", "layout=tp4", "workload=random", "launcher=inline")  # fmt: skip
TWO = ("--multirun", "model=qwen2_57b_a14b,mixtral_8x7b")


def called(arguments: tuple[str, ...], capture: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """The command line in this process: (exit code, stdout, stderr)."""
    code, before = 0, sys.argv
    sys.argv = ["moesd_dist", *PREDICT, *arguments]
    GlobalHydra.instance().clear()
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = before
    out, err = capture.readouterr()
    return code, out, err


@pytest.fixture
def cli(tmp_path, monkeypatch, capfd) -> Cli:
    """Predicts in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: called(arguments, capfd)


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "moesd_dist", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def runs(folder: Path, kind: str) -> list[mlflow.entities.Run]:
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    return list(client.search_runs(["1"], f"tags.`moesd.kind` = '{kind}'"))


def places(folder: Path) -> Counter[tuple[str, int, int]]:
    """How often each (target, batch size, gamma) is recorded."""
    params = [run.data.params for run in runs(folder, "point")]
    return Counter((p["target"], int(p["batch_size"]), int(p["gamma"])) for p in params)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where one process has predicted all combinations."""
    made = tmp_path_factory.mktemp("multirun")
    words = (*TWO[1:], "sweep.batch_size=[1],[1,4]", "-m", "sweep.gamma=[1],[3]")
    done = python(made, *PREDICT, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("compare runs:") == 1
    return made


def test_all_combinations_are_one_sweep_and_common_points_are_measured_once(folder):
    (parent,) = runs(folder, "sweep")
    assert parent.data.params["points"] == "12"  # B=1 is in two jobs of each model
    assert places(folder) == Counter(
        (model, batch, gamma)
        for model in ("qwen2_57b_a14b", "mixtral_8x7b")
        for batch in (1, 4)
        for gamma in (0, 1, 3)
    )


def test_there_is_one_folder_of_output(folder):
    assert not (folder / "multirun").exists()
    (outputs,) = (folder / "outputs").glob("*/*")
    names = {str(path.relative_to(outputs)) for path in outputs.rglob("*") if path.is_file()}
    pictures = {"speedup.png", "experts.png"}
    assert names == {"multirun.yaml", ".hydra/config.yaml", "report.txt", *pictures}


def test_the_configurations_of_all_jobs_are_kept_with_the_run(folder):
    (parent,) = runs(folder, "sweep")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    path = client.download_artifacts(parent.info.run_id, "opening_1/config.yaml")
    kept = yaml.safe_load(Path(path).read_text())
    assert len(kept) == 8
    assert {job["model"]["name"] for job in kept} == {"qwen2_57b_a14b", "mixtral_8x7b"}
    assert not any("${" in str(job) for job in kept)


def test_the_same_points_are_the_same_sweep_with_or_without_multirun(cli, tmp_path):
    model = "model=qwen2_57b_a14b"
    assert cli("--multirun", model, "sweep.batch_size=[1],[4]")[0] == 0
    code, out, _ = cli(model, "sweep.batch_size=[1,4]")
    assert code == 0
    assert "4 of 4 points were finished by an earlier run" in out
    assert len(runs(tmp_path, "sweep")) == 1


@pytest.mark.parametrize(
    ("given", "read"),
    [
        pytest.param(["a=1", "-m", "b=2"], ["a=1", "b=2", "-m"], id="flag between"),
        pytest.param(
            ["--config-name", "x", "~a"], ["~a", "--config-name", "x"], id="a flag's word"
        ),
        pytest.param(["a=1", "--cfg", "job"], ["a=1", "--cfg", "job"], id="already so"),
        pytest.param(["--config-dir=x", "+a=1"], ["+a=1", "--config-dir=x"], id="flag with equals"),
    ],
)
def test_overrides_come_before_flags_in_their_own_order(given, read):
    assert overrides_first(given) == read


def test_ranges_and_globs_are_expanded(cli, tmp_path):
    code, _, err = cli("--multirun", "model=glob(qwen2_57*)", "model.seed=range(1,4)")
    assert (code, err) == (0, "")
    assert set(places(tmp_path).values()) == {3}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(
            ["tracking.experiment=a,b"],
            "tracking.experiment belongs to the whole sweep, got 'a' (tracking.experiment=a) and 'b'",
            id="tracking",
        ),
        pytest.param(
            ["sweep.name=a,b"], "sweep.name belongs to the whole sweep, got 'a'", id="name"
        ),
        pytest.param(["output=a,b"], "output belongs to the whole sweep, got 'a'", id="output"),
        pytest.param(["launcher=inline,ray"], "launcher belongs to the whole sweep", id="launcher"),
        pytest.param(
            ["hardware.whole_node=true,false"],
            "hardware.whole_node is the same wherever analytic runs on A800, got True",
            id="a setting of the hardware",
        ),
        pytest.param(
            ["engine.answer_timeout_s=5,6"],
            "engine.answer_timeout_s is the same wherever analytic runs, got 5.0",
            id="a setting of the engine",
        ),
        pytest.param(["model=qwen2_57b_a14b,gpt5"], "Could not find 'model/gpt5'", id="unknown"),
        pytest.param(
            ["sweep.batch_size=[1],[0]"], "batch_size must be at least 1, got 0", id="one job"
        ),
        pytest.param(
            ["sd=synthetic,ngram"],
            "sd=ngram: the analytic engine cannot verify the tokens of gamma 3",
            id="the job at fault is named",
        ),
        pytest.param(
            ["hydra.sweeper.max_batch_size=1", "sweep.batch_size=[1],[2]"],
            "would make several sweeps of one",
            id="batches of jobs",
        ),
        pytest.param(
            ["sweep.exclude=[{target.name: mixtral}]", *TWO[1:]],
            "leaves nothing out, there are target.name qwen2_57b_a14b, mixtral_8x7b",
            id="an exclusion that no job needs",
        ),
    ],
)
def test_what_jobs_cannot_share_is_one_line(cli, arguments, says):
    code, out, err = cli("model=qwen2_57b_a14b", "--multirun", *arguments)
    assert (code, len(err.splitlines())) == (2, 1)
    assert says in err
    assert "tokens/s" not in out


def test_hardware_may_differ_where_its_name_does_and_an_exclusion_may_be_of_one_job(cli, tmp_path):
    corner = "sweep.exclude=[{hardware: H100, batch_size: 4}]"
    places = ("hardware=A800,H100", "hardware.whole_node=false", "sweep.batch_size=[1,4]")
    code, _, err = cli("model=qwen2_57b_a14b", "--multirun", *places, corner)
    assert (code, err) == (0, "")
    params = [run.data.params for run in runs(tmp_path, "point")]
    assert {(p["hardware"], p["batch_size"]) for p in params} == {
        ("A800", "1"),
        ("A800", "4"),
        ("H100", "1"),
    }


def test_real_engines_of_two_models_are_measured_by_one_process(tmp_path):
    """On Ray, each model loaded once for all of its combinations."""
    done = python(
        tmp_path,
        *("sd=ngram", "workload=random", "--multirun", "model=embedded_small,tiny_qwen3_moe"),
        *("sweep.batch_size=[1],[2]", "sweep.gamma=[1]", "sweep.repeats=1"),
        *("sweep.window_tokens=8", "workload.output_tokens=4", "sweep.name=both"),
        *("workload.prompt_tokens_min=8", "workload.prompt_tokens_max=8"),
    )
    assert done.returncode == 0, done.stderr
    assert "[8/8]" in done.stdout
    (parent,) = runs(tmp_path, "sweep")
    assert (parent.info.run_name, parent.info.status) == ("both", "FINISHED")
    children = runs(tmp_path, "point")
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert Counter(
        (run.data.params["target"], run.data.params["batch_size"], run.data.params["gamma"])
        for run in children
    ) == Counter(
        (model, batch, gamma)
        for model in ("embedded_small", "tiny_qwen3_moe")
        for batch in "12"
        for gamma in "01"
    )
