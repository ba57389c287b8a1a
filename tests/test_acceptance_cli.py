"""Acceptance goes in by `sd.acceptance=FILE` and comes out by `python -m analysis.acceptance`."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from analysis import acceptance
from moesd_dist import config, specs
from moesd_dist.__main__ import CONF, main
from moesd_dist.one_sweep import Job, points_of
from moesd_dist.workloads.acceptance_files import read_profile

POINTS = Path(__file__).parents[1] / "docs" / "results" / "quickstart_cpu" / "points.json"
RATES = "{convention: unconditional, rates: [0.8, 0.6, 0.15]}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "acceptance.yaml"
    path.write_text(RATES)
    return path


def points(*overrides: str):
    GlobalHydra.instance().clear()
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", overrides=[*overrides, "output=x"])
    return points_of([Job(conf=specs.conf_from(composed))])


def sd_points(*overrides: str):
    return [point for point in points(*overrides) if point.gamma]


@pytest.mark.parametrize("method", ["replay", "embedded_draft", "ngram"])
def test_the_rates_of_a_file_reach_every_point(file, method):
    found = sd_points(f"sd={method}", f"sd.acceptance={file}", "sweep.gamma=[1,3]")
    assert [point.gamma for point in found] == [1, 3]
    for point in found:
        assert point.sd.synthetic_acceptance == pytest.approx((0.8, 0.75, 0.25))
        assert point.synthetic_acceptance


def test_a_point_is_the_rates_not_the_file(file, tmp_path):
    copy = tmp_path / "copy.yaml"
    copy.write_text(RATES)
    one, other = (sd_points("sd=replay", f"sd.acceptance={f}", "sweep.gamma=[3]") for f in (file, copy))  # fmt: skip
    assert [p.point_id for p in one] == [p.point_id for p in other]


def test_a_gamma_beyond_the_file_has_to_be_asked_for(file):
    asked = ["sd=replay", f"sd.acceptance={file}", "sweep.gamma=[5]"]
    with pytest.raises(ValueError, match=r"knows 3 positions.* asks for 5.*last rate 0\.25"):
        points(*asked)
    (point,) = sd_points(*asked, "sd.repeat_last_rate=true")
    assert point.sd.synthetic_acceptance == pytest.approx((0.8, 0.75, 0.25))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["sd.acceptance=/no/such"], "no acceptance file '/no/such'", id="no file"),
        pytest.param([], "no acceptance file 'acceptance.json'; give sd.acceptance=FILE", id="replay without a file"),
        pytest.param(
            ["sd.acceptance=FILE", "sd.synthetic_acceptance=[0.8]"], "both give rates", id="both"
        ),
        pytest.param(["sd.acceptance=FILE", "sweep.gamma=[9]"], "sd.repeat_last_rate", id="beyond"),
        pytest.param(["sd.acceptance=BROKEN"], "convention must be", id="a file without its convention"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(file, tmp_path, monkeypatch, capfd, arguments, says):
    broken = tmp_path / "broken.yaml"
    broken.write_text("rates: [0.8]")
    given = [a.replace("FILE", str(file)).replace("BROKEN", str(broken)) for a in arguments]
    given += ["tracking.uri=ftp://stop", f"hydra.run.dir={tmp_path}/out"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["m", "sd=replay", *given])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as stop:
        main()
    err = capfd.readouterr().err
    assert (stop.value.code, len(err.splitlines())) == (2, 1)
    assert says in err


def export(source: Path, out: Path, gamma: int | None = None) -> None:
    acceptance.run(
        Namespace(points=source, sweep=None, uri="", experiment="", gamma=gamma, out=out)
    )


def test_what_is_exported_is_read_back_and_replayed(tmp_path, capsys):
    out = tmp_path / "out" / "acceptance.json"
    export(POINTS, out)
    written, measured = read_profile(out), read_profile(POINTS)
    assert written.profile == measured.profile
    assert written.setting == measured.setting
    assert not written.synthetic
    assert "rounds" in capsys.readouterr().out
    (point,) = sd_points("sd=replay", f"sd.acceptance={out}", "sweep.gamma=[3]")
    assert point.sd.synthetic_acceptance == measured.profile.conditional


def test_one_gamma_alone_is_written_on_request(tmp_path):
    export(POINTS, tmp_path / "a.json", gamma=1)
    assert len(read_profile(tmp_path / "a.json").profile.conditional) == 1
    with pytest.raises(ValueError, match=r"no SD points of gamma 9"):
        export(POINTS, tmp_path / "a.json", gamma=9)


def test_each_setting_has_its_own_file_and_a_coin_says_so(tmp_path):
    plain = json.loads(POINTS.read_text())
    coin = [p | {"point": p["point"] | {"sd": p["point"]["sd"] | {"synthetic_acceptance": [0.9]}}} for p in plain]  # fmt: skip
    source = tmp_path / "points.json"
    source.write_text(json.dumps([*plain, *coin]))
    export(source, tmp_path / "a.json")
    assert read_profile(tmp_path / "a_acceptance-synthetic.json").synthetic
    assert not read_profile(tmp_path / "a_acceptance-verified.json").synthetic


@pytest.mark.parametrize("content", ["[]", "{oops", "[1]"])
def test_an_export_without_sd_points_is_refused(tmp_path, content):
    source = tmp_path / "points.json"
    source.write_text(content)
    with pytest.raises(ValueError, match=r"points\.json"):
        export(source, tmp_path / "a.json")
