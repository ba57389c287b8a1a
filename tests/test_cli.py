"""Whatever a user gets wrong is one clear line and exit code 2, before anything is measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from moesd_dist.__main__ import CONF, main

EMBEDDED = Path(__file__).parents[1] / "moesd_dist" / "models" / "embedded"
FIT = Path(__file__).parents[1] / "docs" / "results" / "full_grid_cpu" / "fit" / "fit.json"
Cli = Callable[..., tuple[int, str, str]]
PREDICT = ("engine=analytic", "sd=synthetic")


@pytest.fixture
def cli(tmp_path, monkeypatch, capfd) -> Cli:
    """Runs the command line in this process and in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOESD_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["moesd_dist", *arguments])
        GlobalHydra.instance().clear()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["+exp=quikstart"], "Could not find 'exp/quikstart'", id="unknown exp"),
        pytest.param(["model=gpt5"], "Could not find 'model/gpt5'", id="unknown model"),
        pytest.param(["sweep.batchsize=[1]"], "'batchsize' not in 'SweepConf'", id="unknown key"),
        pytest.param(
            ["+sweep.batchsize=[1]"], "did you mean sweep.batch_size", id="misspelled new key"
        ),
        pytest.param(["sweep.gamma=[x]"], "could not be converted to Integer", id="wrong type"),
        pytest.param(["sweep.batch_size=8"], "not a ListConfig", id="a number for a list"),
        pytest.param(["sweep.gamma=[-1]"], "sweep.gamma must be at least 0, got -1", id="gamma"),
        pytest.param(
            ["sweep.batch_size=[0]"], "sweep.batch_size must be at least 1, got 0", id="batch 0"
        ),
        pytest.param(["sweep.batch_size=[]"], "empty list", id="no batch"),
        pytest.param(
            ["sweep.top_k=[65]"], "top_k 65 exceeds num_experts 64", id="top_k beyond experts"
        ),
        pytest.param(["model.top_k=65"], "top_k 65 exceeds num_experts 64", id="model.top_k"),
        pytest.param(
            ["+sweep.axes={hardware: [cpu, H200]}"],
            "is for predictions, got H200, cpu",
            id="devices",
        ),
        pytest.param(["model.dtype=int3"], "model.dtype must be one of", id="dtype"),
        pytest.param(["model.dtype=float8_e4m3fn"], "is for predictions", id="predicted dtype"),
        pytest.param(
            ["model.widen.hidden=3"], "power", id="widening that bfloat16 cannot hold exactly"
        ),
        pytest.param(
            ["model=checkpoint", "model.location=/no/such"], "/no/such", id="missing checkpoint"
        ),
        pytest.param(["model=checkpoint"], "needs its location", id="no location"),
        pytest.param(
            ["model=tiny_qwen3_moe", "workload=random"],
            "must share a vocabulary: embedded_draft has 2048 tokens",
            id="vocabularies differ",
        ),
        pytest.param(
            ["workload.prompt_tokens_max=3000"], "exceed the context of embedded", id="context"
        ),
        pytest.param(["workload.prompt_tokens_min=90"], "at least 90", id="min above max"),
        pytest.param(["workload.name=wiki"], "must be one of", id="unknown workload"),
        pytest.param(["workload=jsonl", "workload.path=/no"], "is no file", id="no prompts file"),
        pytest.param(
            ["model=tiny_qwen3_moe", "sd=ngram"], "use workload=random", id="text for a shape"
        ),
        pytest.param(["sd=none"], "needs a draft method", id="gamma without a draft"),
        pytest.param(["sd=synthetic", "sd.synthetic_acceptance=[1.2]"], "between 0", id="alpha"),
        pytest.param(["tracking.uri=ftp://x"], "sqlite:///", id="unknown store"),
        pytest.param(["+sweep.axes={batchsize: [1]}"], "did you mean 'batch_size'", id="axis"),
        pytest.param(["+sweep.axes={threads: 2}"], "must be a list", id="axis without a list"),
        pytest.param(
            ["layout.tp_size=2"], "no tensor parallelism", id="layout of the wrong engine"
        ),
        pytest.param(["+sweep.axes={device: [tpu]}"], "not a valid Device", id="axis of a kind"),
        pytest.param(["+sweep.axes={threads: [two]}"], "threads cannot be read", id="axis type"),
        pytest.param(["+sweep.axes={protocol.repeats: [0]}"], "repeats must be", id="axis value"),
        pytest.param(["+sweep.axes={gamma: [1]}"], "has a key of its own", id="axis twice"),
        pytest.param(["sweep.workload=[jsonl]"], "is no file", id="file workload on an axis"),
        pytest.param(
            ["model=tiny_dense", "model.top_k=1", "sd=ngram", "workload=random"],
            "is dense",
            id="top_k of a dense model",
        ),
        pytest.param(
            ["sweep=adaptive", "sweep.adaptive.budget=3"], "below its start of 4", id="budget"
        ),
        pytest.param(
            ["sweep=adaptive", "sweep.adaptive.start=3"], "start must be at least 4", id="start"
        ),
        pytest.param(
            ["sweep=adaptive", "sweep.adaptive.objective=speed"], "expected one of", id="objective"
        ),
        pytest.param(
            ["sweep=adaptive", "sweep.batch_size=[8]"],
            "several batch sizes",
            id="pool of one batch",
        ),
        pytest.param(["sweep=adaptive", "sweep.control=true"], "has no control", id="control"),
        pytest.param(
            ["sweep=adaptive", "model=checkpoint", "model.location=org/name", "sd=ngram"],
            "the size of org/name is in a config that is not here",
            id="adaptive with a hub name",
        ),
        pytest.param(["layout.ep_size=0"], "layout.ep_size must be at least 1", id="ep_size"),
        pytest.param(
            ["engine=analytic", "hardware=A800"],
            "sd.synthetic_acceptance=[0.8] or sd.acceptance=FILE",
            id="a formula verifies nothing",
        ),
        pytest.param(
            [*PREDICT, "hardware=A800", "layout.dp_size=2"],
            "data-parallel ranks that share the experts",
            id="data parallelism alone by formula",
        ),
        pytest.param(
            [*PREDICT, "hardware=cpu", "layout.tp_size=2"], "a cpu has none", id="links of a cpu"
        ),
        pytest.param(
            [*PREDICT, "hardware=cuda"], "choose one of A100, A800", id="hardware without figures"
        ),
        pytest.param(
            [*PREDICT, "hardware=cpu"],
            "run python -m jobs.calibrate_cpu",
            id="a cpu not calibrated",
        ),
        pytest.param(
            [*PREDICT, "hardware=A800", "+sweep.axes={hardware: [A80]}"],
            "did you mean A800?",
            id="hardware on an axis",
        ),
        pytest.param(
            [
                "engine=analytic",
                f"engine.fit={FIT}",
                "sd.synthetic_acceptance=[0.8]",
                "hardware=A800",
            ],
            "the fit is of hardware cpu, this sweep says A800",
            id="a fit of another device",
        ),
        pytest.param([*PREDICT, "engine.fit=/no/fit"], "'/no/fit' cannot be read", id="no fit"),
        pytest.param(
            [*PREDICT, "hardware=A800", "engine.noise=-1"], "noise must be at least 0", id="noise"
        ),
        pytest.param(["engine.fit=x"], "use engine=analytic", id="a fit for the wrong engine"),
        pytest.param(
            [*PREDICT, "hardware=A800", "model=checkpoint", "model.location=org/name"],
            "the size of org/name is in a config that is not here",
            id="a hub name by formula",
        ),
    ],
)
def test_bad_input_is_one_line(cli, tmp_path, arguments, says):
    code, out, err = cli(*arguments, f"hydra.run.dir={tmp_path}/out")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert says in err
    assert "tokens/s" not in out


def test_an_unwritable_tracking_path_is_one_line(cli, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = cli(f"tracking.uri=sqlite:///{tmp_path}/file/mlflow.db")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "file/mlflow.db" in err


@pytest.mark.parametrize("what", ["truncated", "config", "weights"])
def test_a_broken_checkpoint_is_one_line(cli, tmp_path, what):
    folder = tmp_path / "model"
    folder.mkdir()
    weights = (EMBEDDED / "draft" / "model.safetensors").read_bytes()
    if what != "weights":
        (folder / "model.safetensors").write_bytes(
            weights[:-100] if what == "truncated" else weights
        )
    config = (EMBEDDED / "draft" / "config.json").read_text()
    (folder / "config.json").write_text(config[:-20] if what == "config" else config)
    code, _, err = cli("model=checkpoint", f"model.location={folder}", "sd=ngram")
    assert (code, len(err.splitlines())) == (2, 1)
    assert str(folder) in err


def test_a_cluster_that_is_not_there_is_one_line(cli):
    code, _, err = cli("cluster=existing", "model=embedded_small", "cluster.address=auto")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "ray start --head" in err


def test_every_experiment_composes_and_checks(cli, tmp_path):
    """Each file of conf/exp gets as far as the tracker, which is told to refuse; vLLM's, to vLLM."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "def f():"}))
    for file in sorted((CONF / "exp").glob("*.yaml")):
        text = file.read_text()
        given = [f"workload.path={prompts}"] if "path: ???" in text else []
        needed = "override /engine: vllm" in text and "location: ???" in text
        given += ["model.location=org/target"] if needed else []
        drafts = ("draft_model", "eagle", "eagle3")
        needed = any(f"override /sd: {method}\n" in text for method in drafts)
        given += ["sd.draft.location=org/head"] if needed else []
        code, _, err = cli(f"+exp={file.stem}", *given, "tracking.uri=ftp://stop")
        absent = "override /engine: vllm" in text and find_spec("vllm") is None
        says = "engine=vllm needs vLLM, which is not installed" if absent else "ftp://stop"
        assert (code, says in err) == (2, True), file.name


def test_help_of_a_prompts_file_names_the_line(cli, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": "def f():"}) + "\n{oops\n")
    code, _, err = cli("workload=jsonl", f"workload.path={file}")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "line 2" in err
