"""The calibration job gives positive figures and keeps them where a prediction finds them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jobs import calibrate_cpu
from moesd_dist import cpu_cache, hardware
from moesd_dist.tracking.provenance import cpu_model

TINY = ["--read-mib", "1", "--gemm-size", "16", "--repeats", "2"]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the command with a cache of its own; what it printed."""
    monkeypatch.setenv("MOESD_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["calibrate_cpu", *TINY, *arguments])
        calibrate_cpu.main()
        return capsys.readouterr().out

    return run


def test_the_command_fills_the_cache_from_which_predictions_read(job) -> None:
    out = job()
    assert all(unit in out for unit in ("GB/s", "GFLOP/s", "GiB", "GHz"))
    rates = cpu_cache.read(threads=1, cpu_model=cpu_model())
    assert rates.read_bytes_per_s > 0
    assert rates.gemm_flops > 0
    assert hardware.device_figures(hardware.hardware_named("cpu")) == rates.figures


def test_another_file_leaves_the_cache_alone(job, tmp_path: Path) -> None:
    job("--out", str(tmp_path / "figures.json"))
    assert (tmp_path / "figures.json").is_file()
    assert not cpu_cache.cache_file(1).exists()


def test_threads_are_part_of_the_name(job) -> None:
    assert "2t.json" in job("--threads", "2").replace("\n", "")
    with pytest.raises(ValueError, match="--threads 1"):
        cpu_cache.read(threads=1, cpu_model=cpu_model())


def test_no_threads_are_refused(job, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        job("--threads", "0")
    assert "--threads must be at least 1, got 0" in capsys.readouterr().err
