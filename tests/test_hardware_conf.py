"""Every file of conf/hardware says what it is, and what a prediction needs of it."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from analysis.published import read_rows
from analysis.transfer import learned
from moesd_dist import cpu_cache, hardware
from moesd_dist.config import CONF, AchievedConf, FiguresConf
from moesd_dist.cpu_cache import CpuRates
from moesd_dist.hardware import achieved_of
from moesd_dist.theory.devices.device import DeviceFigures
from moesd_dist.theory.devices.operations import Achieved
from moesd_dist.tracking.provenance import cpu_model

NO_NODES = ("L40", "L40S")  # whose links between nodes differ from one server to the next
ON_NODES = ("A100", "A800", "H100", "H800", "H200", "B200", "GB200_NVL72", "MI300X")
GPUS = ON_NODES + NO_NODES
NAMES = sorted(path.stem for path in (CONF / "hardware").glob("*.yaml"))
RATES = CpuRates(
    host="here", cpu_model=cpu_model(), threads=1, read_bytes_per_s=4e10, read_spread=0.01,
    gemm_flops=5e11, gemm_spread=0.02, memory_bytes=2**34, clock_hz=2.6e9,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESD_CACHE", str(tmp_path))


def test_the_schema_asks_for_what_the_theory_asks_for() -> None:
    assert [f.name for f in fields(FiguresConf)] == [f.name for f in fields(DeviceFigures)]
    assert {f.name for f in fields(AchievedConf)} == {f.name for f in fields(Achieved)}


def test_all_the_devices_of_the_issue_are_there() -> None:
    assert set(NAMES) == {*GPUS, "cpu", "cuda"}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_commented_and_named_after_itself(name: str) -> None:
    assert (CONF / "hardware" / f"{name}.yaml").read_text().startswith("# ")
    assert hardware.hardware_named(name).name == name


@pytest.mark.parametrize("name", GPUS)
def test_a_device_has_figures_with_a_source_for_each(name: str) -> None:
    figures = hardware.device_figures(hardware.hardware_named(name))
    assert 10 < figures.flops / figures.bytes_per_s < 1000  # the ridge point, operations a byte
    lines = (CONF / "hardware" / f"{name}.yaml").read_text().splitlines()
    for field in [f for f in fields(DeviceFigures) if getattr(figures, f.name) is not None]:
        (line,) = (line for line in lines if line.strip().startswith(f"{field.name}:"))
        assert "  # " in line


@pytest.mark.parametrize("name", GPUS)
def test_the_way_to_other_nodes_is_known_whole_or_not_at_all(name: str) -> None:
    figures = hardware.device_figures(hardware.hardware_named(name))
    far = (figures.inter_link_bytes_per_s, figures.inter_link_latency_s, figures.devices_per_node)
    if name in NO_NODES:
        assert far == (None, None, None)
        return
    rate, latency, devices = far
    assert rate is not None
    assert latency is not None
    assert rate < figures.link_bytes_per_s
    assert latency > figures.link_latency_s
    assert devices == (72 if name == "GB200_NVL72" else 8)


def test_what_vllm_achieves_is_what_the_a800_rows_teach() -> None:
    taught = asdict(learned(read_rows(), "2xA800").achieved)
    for conf in [AchievedConf(), *(hardware.hardware_named(name).achieved for name in GPUS)]:
        assert asdict(conf) == pytest.approx(taught, rel=0.005)


def test_the_china_models_differ_in_their_links_only() -> None:
    for full, cut in (("A100", "A800"), ("H100", "H800")):
        ours, theirs = (hardware.device_figures(hardware.hardware_named(n)) for n in (full, cut))
        assert theirs.link_bytes_per_s == 200e9 < ours.link_bytes_per_s
        assert replace(theirs, link_bytes_per_s=ours.link_bytes_per_s) == ours


@pytest.mark.parametrize("name", NAMES)
def test_efficiencies_can_be_achieved(name: str) -> None:
    achieved_of(hardware.hardware_named(name))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("h200", "did you mean H200", id="another case"),
        pytest.param("TPU", "there are A100, A800", id="nothing like it"),
        pytest.param("../model/embedded", "no hardware", id="no path"),
    ],
)
def test_an_unknown_name_lists_those_that_exist(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        hardware.hardware_named(name)


def test_hardware_without_figures_cannot_be_predicted() -> None:
    with pytest.raises(ValueError, match="hardware cuda has no flops"):
        hardware.device_figures(hardware.hardware_named("cuda"))


def test_a_cpu_reads_its_figures_from_the_cache_of_its_host() -> None:
    cpu_cache.write(RATES, cpu_cache.cache_file(1))
    found = hardware.device_figures(hardware.hardware_named("cpu"))
    assert (found.flops, found.bytes_per_s, found.memory_bytes) == (5e11, 4e10, 2**34)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(None, "run python -m jobs.calibrate_cpu --threads 1", id="not measured"),
        pytest.param("{", "cannot be read", id="not JSON"),
        pytest.param("{}", "cannot be read", id="not rates"),
        pytest.param(
            json.dumps(asdict(replace(RATES, cpu_model="another"))),
            "is of a another, this is",
            id="another processor",
        ),
    ],
)
def test_a_cpu_without_its_figures_says_how_to_get_them(text: str | None, says: str) -> None:
    if text is not None:
        cpu_cache.cache_file(1).write_text(text)
    with pytest.raises(ValueError, match=says):
        hardware.device_figures(hardware.hardware_named("cpu"))
