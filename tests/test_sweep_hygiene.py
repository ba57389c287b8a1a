"""Zipped axes, exclusions and extensions as a user gives them: what is measured, and under which id."""

from __future__ import annotations

import sys
from collections.abc import Callable

import mlflow
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from moesd_dist import config, specs
from moesd_dist.__main__ import CONF, main
from moesd_dist.one_sweep import Job, points_of
from moesd_dist.records import (
    DraftMethod,
    ModelSource,
    ModelSpec,
    Role,
    SdSpec,
    SweepPoint,
    WorkloadSpec,
)
from moesd_dist.sweep.grouping import engine_key, groups

Cli = Callable[..., tuple[int, str, str]]
PREDICT = ("engine=analytic", "sd=synthetic", "hardware=A800", "layout=tp4", "workload=random", "launcher=inline", "model=qwen2_57b_a14b")  # fmt: skip


@pytest.fixture
def cli(tmp_path, monkeypatch, capfd) -> Cli:
    """Predicts in this process and in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOESD_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["moesd_dist", *PREDICT, *arguments])
        GlobalHydra.instance().clear()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run


def sweeps(folder) -> list[mlflow.entities.Run]:
    """Oldest first."""
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    order = ["attributes.start_time ASC"]
    return list(client.search_runs(["1"], "tags.`moesd.kind` = 'sweep'", order_by=order))


def recorded(folder, parent: mlflow.entities.Run) -> list[tuple[int, int]]:
    """(batch size, gamma) of every finished point of a sweep, sorted."""
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}' and tags.`moesd.finished` = 'true'"
    params = [run.data.params for run in client.search_runs(["1"], query)]
    return sorted((int(p["batch_size"]), int(p["gamma"])) for p in params)


@pytest.mark.parametrize(
    ("arguments", "points"),
    [
        pytest.param(
            ["sweep.zipped=[{batch_size: [1, 8], gamma: [4, 2]}]"],
            [(1, 0), (1, 4), (8, 0), (8, 2)],
            id="zipped in the place of two axes",
        ),
        pytest.param(
            ["sweep.zipped=[{batch_size: [1, 8], threads: [1, 2]}]", "sweep.gamma=[1,2]"],
            [(1, 0), (1, 1), (1, 2), (8, 0), (8, 1), (8, 2)],
            id="zipped beside an axis",
        ),
        pytest.param(
            [
                "sweep.batch_size=[1,8,64]",
                "sweep.gamma=[2,4]",
                "sweep.exclude=[{batch_size: [8, 64], gamma: 4}]",
            ],
            [(1, 0), (1, 2), (1, 4), (8, 0), (8, 2), (64, 0), (64, 2)],
            id="an excluded corner",
        ),
    ],
)
def test_what_is_zipped_and_left_out_decides_what_is_measured(arguments, points):
    GlobalHydra.instance().clear()
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        conf = specs.conf_from(compose("config", overrides=[*PREDICT, *arguments, "output=x"]))
    assert sorted((p.batch_size, p.gamma) for p in points_of([Job(conf=conf)])) == points


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(
            ["sweep.zipped=[{batch_size: [1, 8], gamma: [4]}]"],
            "batch_size has 2, gamma has 1",
            id="unequal lengths",
        ),
        pytest.param(["sweep.zipped=[{gamma: []}]"], "gamma has 0", id="zipped without values"),
        pytest.param(
            ["sweep.zipped=[{gamma: 4}]"], "sweep.zipped.gamma must be a list", id="no list"
        ),
        pytest.param(["sweep.zipped=[4]"], "is a list of mappings, got 4", id="no mapping"),
        pytest.param(
            ["sweep.zipped=[{gamma: [4]}, {gamma: [2]}]"],
            "has gamma in two mappings",
            id="zipped twice",
        ),
        pytest.param(
            ["sweep.zipped=[{gamma: [4, 2]}]", "sweep.gamma=[1,2]"],
            "gamma is zipped and has 2 values of its own, [1, 2]; give sweep.gamma=[1]",
            id="zipped and an axis",
        ),
        pytest.param(
            ["sweep.zipped=[{top_k: [4, 2]}]", "sweep.top_k=[4]"],
            "top_k is zipped and has 1 values of its own",
            id="zipped and an axis of one value",
        ),
        pytest.param(
            ["sweep.zipped=[{gamma: [-1]}]"],
            "sweep.zipped.gamma must be at least 0, got -1",
            id="zipped value",
        ),
        pytest.param(["sweep.zipped=[{gama: [1]}]"], "did you mean 'gamma'", id="zipped field"),
        pytest.param(
            ["sweep.exclude=[{batch_size: 9}]"],
            "leaves nothing out, there are batch_size 8; correct it",
            id="an exclusion that matches nothing",
        ),
        pytest.param(
            ["sweep.exclude=[{batch_size: 8}]"],
            "leaves out all 1 combinations",
            id="an exclusion of everything",
        ),
        pytest.param(["sweep.exclude=[{gama: 1}]"], "did you mean 'gamma'", id="excluded field"),
        pytest.param(["sweep.exclude=[8]"], "is a list of mappings, got 8", id="excluded number"),
        pytest.param(["sweep.extends=abc"], "first 6 or more", id="too short an id"),
        pytest.param(["sweep.extends=abcdef"], "there is none", id="no such sweep"),
    ],
)
def test_what_cannot_be_is_one_line(cli, arguments, says):
    code, out, err = cli(*arguments)
    assert (code, len(err.splitlines())) == (2, 1)
    assert says in err
    assert "tokens/s" not in out


def test_an_extension_keeps_the_run_and_measures_only_what_is_new(cli, tmp_path):
    assert cli("sweep.batch_size=[1,8]")[0] == 0
    (first,) = sweeps(tmp_path)
    sweep_id = first.data.tags["moesd.sweep_id"]
    code, out, err = cli("sweep.batch_size=[1,8,64]", f"sweep.extends={sweep_id[:6]}")
    assert (code, err) == (0, "")
    assert f"continues sweep single ({sweep_id}) of 4 points with 2 more" in out
    assert "4 of 6 points were finished by an earlier run" in out
    (parent,) = sweeps(tmp_path)
    assert parent.info.run_id == first.info.run_id
    assert parent.data.tags["moesd.extended_to"] == "6"
    assert recorded(tmp_path, parent) == [(1, 0), (1, 3), (8, 0), (8, 3), (64, 0), (64, 3)]


def test_an_extension_that_drops_points_is_refused_with_an_example(cli, tmp_path):
    assert cli("sweep.batch_size=[1,8]")[0] == 0
    sweep_id = sweeps(tmp_path)[0].data.tags["moesd.sweep_id"]
    code, _, err = cli("sweep.batch_size=[8,64]", f"sweep.extends={sweep_id}")
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"2 of the 4 of {sweep_id} are not among these 4, such as B=1 gamma=0; add them" in err


def test_a_namesake_with_other_points_is_a_new_sweep_and_says_so(cli, tmp_path):
    _, out, _ = cli("sweep.batch_size=[1]")
    assert "exists" not in out
    _, out, _ = cli("sweep.batch_size=[1]")
    assert "exists" not in out
    first = sweeps(tmp_path)[0].data.tags["moesd.sweep_id"]
    _, out, _ = cli("sweep.batch_size=[1,8]")
    assert f"a sweep named single with other points exists ({first}, 2 points)" in out
    assert f"sweep.extends={first} would continue it" in out
    _, out, _ = cli("sweep.batch_size=[64]")
    assert "it has 4 points that this one lacks" in out
    assert len(sweeps(tmp_path)) == 3


def test_two_draft_models_are_two_groups_and_the_baseline_is_recorded_once():
    target = ModelSpec(name="t", source=ModelSource.embedded, location="target")
    work = WorkloadSpec(name="random", prompt_tokens_min=1, prompt_tokens_max=1, output_tokens=1)
    drafts = [ModelSpec(name=n, source=ModelSource.shape) for n in ("small", "large")]
    points = [
        SweepPoint(
            engine="transformers",
            target=target,
            workload=work,
            batch_size=1,
            gamma=2,
            sd=SdSpec(method=DraftMethod.draft_model, draft=draft),
        )
        for draft in drafts
    ]
    made = groups([points[0].baseline, *points], finished=())
    assert [engine_key(group).draft for group in made] == drafts
    assert [[p.role for p in g.wanted] for g in made] == [[Role.baseline, Role.sd], [Role.sd]]
