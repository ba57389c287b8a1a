"""Layouts are measured on real ranks, shown, kept by host, and found again by predictions."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from jobs import calibrate as job
from jobs.calibration_tables import collectives_of, rates_of
from moesd_dist import calibrations, cpu_cache
from moesd_dist.cpu_cache import CpuRates
from moesd_dist.hardware import device_figures, hardware_named
from moesd_dist.records.calibration import Calibration, CollectiveTimes, RankRates
from moesd_dist.tracking.provenance import cpu_model

ROOT = Path(__file__).parents[2]
SIZES = (64, 4096, 1_048_576)
LATENCY_S, BYTES_PER_S = 100e-6, 500e6
HOST = platform.node()


def times(collective: str, ranks: int, nodes: int, *, factor: float = 1.0) -> CollectiveTimes:
    """Invented: an exact alpha-beta law."""
    spent = tuple(factor * (LATENCY_S + size / BYTES_PER_S) for size in SIZES)
    return CollectiveTimes(
        collective=collective,
        ranks=ranks,
        nodes=nodes,
        row_bytes=SIZES,
        seconds=spent,
        low_s=tuple(0.9 * s for s in spent),
        high_s=tuple(1.2 * s for s in spent),
    )


def rates(ranks: int, nodes: int, rank: int = 0, *, share: float = 1.0) -> RankRates:
    return RankRates(
        ranks=ranks,
        nodes=nodes,
        rank=rank,
        host=HOST,
        read_bytes_per_s=40e9 * share,
        gemm_flops=400e9 * share,
        kernel_s=50e-6 / share,
    )


@pytest.fixture
def known() -> Calibration:
    """Invented, of this host: ranks on two nodes take four times as long for a collective."""
    return Calibration(
        measured="2026-11-21T12:00:00+00:00",
        threads=1,
        cpu_model=cpu_model(),
        collectives=(times("all_to_all", 2, 1), times("all_to_all", 2, 2, factor=4.0)),
        rates=(rates(1, 1), rates(2, 1, share=0.5), rates(2, 1, 1, share=0.25), rates(2, 2), rates(2, 2, 1)),
        counts=(replace(times("counts", 2, 1), row_bytes=(8,), seconds=(7e-5,)),),
    )  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOESD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_it_is_kept_by_hosts_processor_and_threads_and_read_back(known, cache):
    file = calibrations.write(known, calibrations.cache_file(known))
    assert file.parent == cache
    assert calibrations.read(file) == known
    others = [
        replace(known, threads=2),
        replace(known, cpu_model="another"),
        replace(known, rates=(*known.rates, replace(rates(4, 2), host="elsewhere"))),
    ]
    assert len({calibrations.cache_file(c) for c in (known, *others)}) == 4


@pytest.mark.parametrize(
    "content", [pytest.param("{", id="cut short"), pytest.param("{}", id="something else")]
)
def test_a_file_that_is_no_calibration_is_refused(tmp_path, content):
    file = tmp_path / "wrong.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"is no calibration .* python -m jobs\.calibrate"):
        calibrations.read(file)


def test_predictions_take_links_from_the_newest_of_this_host_alone(known, cache):
    single = CpuRates(
        host=HOST, cpu_model=cpu_model(), threads=1, read_bytes_per_s=4e10, read_spread=0.0,
        gemm_flops=4e11, gemm_spread=0.0, memory_bytes=2**30, clock_hz=3e9,
    )  # fmt: skip
    cpu_cache.write(single, cpu_cache.cache_file(1))
    hardware = hardware_named("cpu")
    before = device_figures(hardware)
    assert before.link_bytes_per_s == cpu_cache.NO_LINK_BYTES_PER_S
    older = replace(known, measured="2020", collectives=(times("all_to_all", 2, 1, factor=9.0),))
    foreign = replace(known, rates=(replace(rates(1, 1), host=f"{HOST}2"),), measured="2030")
    for each, name in ((known, "a"), (older, "b"), (foreign, "c")):
        calibrations.write(each, cache / f"ranks-{HOST}-1t-{name}.json")
    found = device_figures(hardware)
    assert found.link_latency_s == pytest.approx(LATENCY_S)
    assert found.link_bytes_per_s == pytest.approx(BYTES_PER_S)
    assert found.inter_link_latency_s == pytest.approx(4 * LATENCY_S)
    assert found.inter_link_bytes_per_s == pytest.approx(BYTES_PER_S / 4)
    unlinked = replace(found, link_bytes_per_s=before.link_bytes_per_s,
                       link_latency_s=before.link_latency_s, inter_link_bytes_per_s=None,
                       inter_link_latency_s=None)  # fmt: skip
    assert unlinked == before


def test_times_without_a_latency_give_no_link(known):
    flat = replace(known.collectives[0], seconds=(1e-4, 1e-4, 1e-4))
    assert calibrations.link_of([flat]) is None
    assert calibrations.link_of([]) is None


def test_the_tables_show_times_their_law_and_what_sharing_costs(known):
    console = Console(width=120, record=True, file=StringIO())
    console.print(collectives_of(known, (2, 1)))
    console.print(rates_of(known))
    text = " ".join(console.export_text().split())
    assert "2 ranks on 1 node" in text
    assert "1 MiB │ 2197 (1977-2637)" in text
    assert "latency │ 100 us" in text
    assert "bandwidth │ 500 MB/s" in text
    assert "counts 70" in text
    assert f"1 │ {HOST} │ 10.0 │ 0.25 │ 100 │ 0.25 │ 200 │ 4.00" in text


def test_a_busy_host_is_warned_of(known):
    assert job.warning_of(known, 0.5) == ""
    busy = replace(known, rates=(*known.rates, replace(rates(4, 1), foreign_cores=1.4)))
    assert f"others kept 1.4 cores of {HOST} busy" in job.warning_of(busy, 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--ranks", "2,4", "--nodes", "1"], "got 1 for 2;", id="unequal lists"),
        pytest.param(["--ranks", "3", "--nodes", "2"], "nodes 2 does not divide the 3", id="uneven"),
        pytest.param(["hardware=MI300X"], "no node carries ray.io/accelerator-type", id="no such GPU here"),
        pytest.param(["launcher=inline"], "launcher=inline, use launcher=ray", id="one process"),
        pytest.param(["cluster=nowhere"], "nowhere", id="no such cluster"),
        pytest.param(["cluster=existing", "cluster.address=127.0.0.1:1"], "no Ray cluster", id="no answer"),
        pytest.param(["cluster=existing", "cluster.nodes=2"], "has its own; leave them", id="not ours"),
    ],
)  # fmt: skip
def test_what_cannot_be_calibrated_is_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        job.main(arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_two_nodes_on_this_machine_are_measured_from_end_to_end(tmp_path):
    small = ("--repeats", "3", "--largest", "65536", "--read-mib", "16", "--layer-mib", "8", "--span", "0.2")  # fmt: skip
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, "-m", "jobs.calibrate", "--ranks", "2", "--nodes", "2", *small, "--out", str(out), "cluster=local_nodes"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"saved {out}" in done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("measuring")] == [
        "measuring 1 rank on 1 node",
        "measuring 2 ranks on 2 nodes",
    ]
    found = calibrations.read(out)
    assert found.layouts == ((1, 1), (2, 2))
    assert found.hosts == (HOST,)
    assert found.layer_bytes == 8 * 2**20
    assert {c.collective for c in found.collectives} == {
        "all_to_all",
        "all_gather",
        "reduce_scatter",
    }
    for each in (*found.collectives, *found.counts):
        assert (each.ranks, each.nodes) == (2, 2)
        assert all(
            0 < a <= b <= c for a, b, c in zip(each.low_s, each.seconds, each.high_s, strict=True)
        )
        assert all(0 <= error < mean for error, mean in zip(each.error_s, each.mean_s, strict=True))
    assert {c.row_bytes for c in found.collectives} == {(64, 256, 1024, 4096, 16384, 65536)}
    assert [c.row_bytes for c in found.counts] == [(8,)]
    assert [(r.ranks, r.rank) for r in found.rates] == [(1, 0), (2, 0), (2, 1)]
    assert all(min(r.read_bytes_per_s, r.gemm_flops, r.kernel_s) > 0 for r in found.rates)
