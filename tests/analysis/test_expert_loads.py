"""`python -m analysis.expert_loads` from a database to a file that experts are placed by."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from analysis import expert_loads
from analysis.load import load_sweep
from moesd_dist.models.expert_loads import read_loads
from moesd_dist.records import Measurement, ModelSource, ModelSpec
from moesd_dist.tracking.mlflow_runs import children, connect
from tests.analysis.conftest import measure, point
from tests.analysis.known_sweep import store

Cli = Callable[..., tuple[int, str, str]]
SHAPE = ModelSpec(name="other", source=ModelSource.shape)


def loaded(m: Measurement, *rows: tuple[int, ...]) -> Measurement:
    """Each repeat with these loads; the baseline beside it with others, which are not to count."""
    return replace(
        m,
        repeats=tuple(replace(r, expert_load=rows) for r in m.repeats),
        baseline=tuple(replace(r, expert_load=((1000,) * 3,) * 2) for r in m.baseline),
    )


KNOWN = [
    loaded(measure(point(8, 3), repeats=2), (1, 2, 3), (6, 0, 0)),
    loaded(measure(point(8, 0), repeats=2), (10, 20, 30), (20, 20, 20)),
]
OTHER = [loaded(measure(point(8, 3, target=SHAPE), repeats=1), (1, 1), (5, 2))]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    store(found, "known", [*KNOWN, measure(point(16, 3))])
    store(found, "two", [*KNOWN, *OTHER])
    store(found, "unseen", [measure(point(8, 3))])
    odd = loaded(measure(point(16, 3), repeats=1), (1, 2, 3))
    store(found, "odd", [KNOWN[0], odd])
    return found


@pytest.fixture
def cli(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Cli:
    """In this process: (exit code, stdout, stderr)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        out = str(tmp_path / "made" / "loads.json")
        monkeypatch.setattr(sys, "argv", ["m", "--uri", uri, "--out", out, *arguments])
        code = 0
        try:
            expert_loads.main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        said = capfd.readouterr()
        return code, said.out, said.err

    return call


def test_the_windows_of_all_points_add_up(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("--sweep", "known")
    path = tmp_path / "made" / "loads.json"
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(read_loads(path), [[22, 44, 66], [52, 40, 40]])
    plain = json.loads(path.read_text())
    assert (plain["model"], plain["source"]) == ("embedded", "sweep known, 2 points")
    assert "embedded, 2 layers of 3 experts, 2 points" in out
    assert "1.18 to 1.50 times the mean load" in out


def test_one_of_several_targets_is_asked_for_by_name(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("--sweep", "two")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "--target NAME" in err
    assert "embedded" in err
    assert cli("--sweep", "two", "--target", "other")[0] == 0
    plain = json.loads((tmp_path / "made" / "loads.json").read_text())
    assert plain["loads"] == [[1, 1], [5, 2]]
    assert plain["source"] == "sweep two, 1 points, RANDOM WEIGHTS"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["--sweep", "nobody"], "no sweep 'nobody'", id="no such sweep"),
        pytest.param(["--sweep", "unseen"], "recorded expert loads", id="no loads"),
        pytest.param(["--sweep", "odd"], "as many layers and experts", id="other shapes"),
        pytest.param(["--sweep", "known", "--target", "x"], "no loads of target 'x'", id="target"),
    ],
)
def test_bad_input_is_one_line(cli: Cli, tmp_path: Path, arguments: list[str], says: str) -> None:
    code, _, err = cli(*arguments)
    assert (code, len(err.splitlines())) == (2, 1)
    assert says in err
    assert not (tmp_path / "made").exists()


def test_a_run_that_lost_its_record_is_named(cli: Cli, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    store(uri, "lost", KNOWN[:1])
    assert len(load_sweep(uri, "moesd-dist", "lost")) == 1  # from its tags
    _record(uri).unlink()
    code, _, err = cli("--uri", uri, "--sweep", "lost")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "B=8 gamma=3" in err
    assert "measure the sweep again" in err


def _record(uri: str) -> Path:
    client = connect(uri)
    experiment = client.get_experiment_by_name("moesd-dist").experiment_id
    (parent,) = client.search_runs([experiment], "tags.`moesd.kind` = 'sweep'")
    (run,) = children(client, experiment, parent.info.run_id)
    return Path(unquote(urlsplit(run.info.artifact_uri).path)) / "measurement.json"
