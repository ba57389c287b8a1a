"""`plan=true` says what a sweep would cost and spends nothing: no engine, no run, no database."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from moesd_dist.__main__ import main
from moesd_dist.cpu_cache import CpuRates, cache_file, write
from moesd_dist.tracking.provenance import cpu_model

Cli = Callable[..., tuple[int, str, str]]
SIMULATED = ("engine=analytic", "sd=synthetic", "hardware=A800", "launcher=inline")
OPEN = {"RAY_AUTH_MODE": "disabled"}  # a cluster without tokens, of another's making
ON_H200 = ("hardware=H200", "model=olmoe_1b_7b", "sd=ngram", "workload=random")


@pytest.fixture
def cli(tmp_path, monkeypatch, capfd) -> Cli:
    """Runs the command line in this process and in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOESD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["moesd_dist", *arguments])
        GlobalHydra.instance().clear()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return code, " ".join(out.split()), err

    return run


def test_a_plan_spends_nothing(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("+exp=quickstart", "plan=true", "hydra.run.dir=out")
    assert (code, err) == (0, "")
    assert "21: 0 done, 21 to measure, 0 infeasible" in out
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"out"}  # Hydra's own folder: no database, no journal, no artifacts
    assert "tokens/s" not in out


def test_a_guess_is_called_one(cli: Cli) -> None:
    """No calibration and no earlier run of this processor."""
    _, out, _ = cli("+exp=quickstart", "plan=true")
    assert "known from A GUESS (7 groups)" in out


def test_figures_of_the_processor_are_used_where_there_are_any(cli: Cli) -> None:
    rates = CpuRates(
        host="here",
        cpu_model=cpu_model(),
        threads=1,
        read_bytes_per_s=40e9,
        read_spread=0.0,
        gemm_flops=400e9,
        gemm_spread=0.0,
        memory_bytes=2**36,
        clock_hz=2.5e9,
    )
    write(rates, cache_file(1))
    _, out, _ = cli("+exp=quickstart", "plan=true")
    assert "known from the analytic model (7 groups)" in out


def test_points_that_are_done_are_not_planned_again(cli: Cli, tmp_path: Path) -> None:
    axes = ("sweep.batch_size=[1,4]", "sweep.gamma=[1,3]", "sweep.repeats=1")
    assert cli(*SIMULATED, *axes)[0] == 0
    code, out, _ = cli(*SIMULATED, *axes, "plan=true")
    assert (code, "6: 6 done, 0 to measure" in out, "nothing to measure" in out) == (0, True, True)
    _, out, _ = cli(*SIMULATED, "sweep.batch_size=[1,4,8]", *axes[1:], "plan=true")
    assert "SIMULATED" in out
    assert "9: 0 done, 9 to measure" in out  # other points: another sweep
    assert "exists" in out  # and it says so
    (tmp_path / "mlflow.db").unlink()  # the journal knows what the tracker does not
    _, out, _ = cli(*SIMULATED, *axes, "plan=true")
    assert "6: 6 done, 0 to measure" in out
    assert not (tmp_path / "mlflow.db").exists()


def test_a_plan_goes_by_what_was_measured_before(cli: Cli) -> None:
    """Of B=1 and B=4 exactly, of B=2 from its neighbours; another protocol is no obstacle."""
    small = ("model=embedded_small", "launcher=inline", "sweep.gamma=[1]")
    small += ("sweep.window_tokens=8", "workload.output_tokens=4", "sweep.warmup_rounds=1")
    assert cli(*small, "sweep.batch_size=[1,4]", "sweep.repeats=1")[0] == 0
    code, out, _ = cli(*small, "sweep.batch_size=[1,2,4]", "sweep.repeats=3", "plan=true")
    assert code == 0
    assert "earlier runs (2 groups)" in out
    assert "earlier runs of other batch sizes or gammas (1 groups)" in out


def test_a_gpu_plan_needs_no_gpu(cli: Cli) -> None:
    code, out, _ = cli(*ON_H200, "sweep.batch_size=[1,8,64]", "plan=true")
    assert code == 0
    assert "no node carries ray.io/accelerator-type=H200" in out
    assert "assumed: 1 node" in out
    (hours,) = re.findall(r"GPU-hours ([0-9.e-]+)", out)
    assert 0.0 < float(hours) < 1.0
    assert "the analytic model (3 groups)" in out


def test_what_cannot_fit_is_named_and_costs_nothing(cli: Cli) -> None:
    """120 GiB of caches at B=4096; and 107 GiB of weights never fit."""
    code, out, _ = cli(*ON_H200, "sweep.batch_size=[8,16384]", "sweep.gamma=[2]", "plan=true")
    assert (code, "4: 0 done, 2 to measure, 2 infeasible" in out) == (0, True)
    assert re.search(r"infeasible: B=16384 gamma=2 needs \d+\.\d GiB of memory, H200 has 131", out)
    _, out, _ = cli(
        "hardware=A100", "model=qwen2_57b_a14b", "sd=ngram", "workload=random", "plan=true"
    )
    assert "2: 0 done, 0 to measure, 2 infeasible" in out


def test_a_budget_buys_the_groups_that_end_first(cli: Cli) -> None:
    arguments = (*ON_H200, "sweep.batch_size=[1,8,64]", "sweep.gamma=[1]", "plan=true")
    _, all_of_it, _ = cli(*arguments, "budget_hours=100")
    assert "100 GPU-hours buy 6 of 6 points" in all_of_it
    _, nothing, _ = cli(*arguments, "budget_hours=0")
    assert "0 GPU-hours buy 0 of 6 points" in nothing
    (hours,) = re.findall(r"GPU-hours ([0-9.e-]+)", all_of_it)
    _, some, _ = cli(*arguments, f"budget_hours={0.9 * float(hours)}")
    (count,) = re.findall(r"buy (\d) of 6 points", some)
    assert 2 <= int(count) <= 4


def test_an_adaptive_plan_is_an_upper_bound(cli: Cli) -> None:
    arguments = (*ON_H200, "sweep.batch_size=[1,2,4,8,16,32,64]", "sweep.gamma=[1,2,3]")
    adaptive = ("sweep=adaptive", "sweep.adaptive.budget=6", "plan=true")
    _, out, _ = cli(*adaptive, *arguments)
    assert "chosen one by one among 21 SD points: the dearest are counted" in out
    (new,) = re.findall(r"(\d+) to measure", out)
    assert 6 < int(new) <= 12  # each SD point with its baseline, some of them shared
    assert re.search(r"GPU-hours \S+ at most", out)


def test_a_cluster_that_is_not_there_is_planned_on_this_machine(cli: Cli) -> None:
    code, out, err = cli(*ON_H200, "cluster=existing", "cluster.address=127.0.0.1:1", "plan=true")
    assert (code, err) == (0, "")
    assert "no Ray cluster answers at cluster.address=127.0.0.1:1" in out
    assert "this machine" in out


def test_nodes_on_this_machine_are_reckoned_with(cli: Cli) -> None:
    spread = ("layout.dp_size=4", "layout.nodes=2", "layout.expert_parallel=true")
    code, out, err = cli("cluster=local_nodes", *spread, "workload=random", "plan=true")
    assert (code, err) == (0, "")
    assert "this machine: 2 nodes, 8 CPUs, 0 GPUs" in out
    assert "assumed" not in out


def test_nodes_are_not_started_beside_a_cluster_that_is_there(cli: Cli) -> None:
    code, _, err = cli("cluster=existing", "cluster.nodes=2", "workload=random", "plan=true")
    assert code == 2
    assert "cluster.address=auto has its own; leave them away" in err


@pytest.fixture
def h200_node() -> Iterator[str]:
    """The address of a Ray cluster of one node that says it has eight H200."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        address = f"127.0.0.2:{probe.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="mp", dir="/tmp") as folder:  # sockets need short paths
        node = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                *("--node-ip-address=127.0.0.2", f"--port={address.rpartition(':')[2]}"),
                *("--num-cpus=16", "--num-gpus=8", "--labels=ray.io/accelerator-type=H200"),
                *("--object-store-memory=80000000", "--include-dashboard=false"),
                *(f"--temp-dir={folder}", "--disable-usage-stats", "--include-log-monitor=false"),
            ],
            env=os.environ | OPEN,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert node.stdout is not None
        try:
            assert any("Ray runtime started" in line for line in node.stdout)
            yield address
        finally:
            node.terminate()
            node.wait(timeout=30)


def test_a_cluster_that_answers_is_reckoned_with(h200_node: str, tmp_path: Path) -> None:
    """Its nodes and their labels. A process of its own: Ray keeps the tokens of earlier clusters."""
    axes = ("sweep.batch_size=[1,8,64]", "+sweep.axes={workload.seed: [0,1,2,3,4,5,6,7]}")
    there = ("cluster=existing", f"cluster.address={h200_node}", "plan=true")
    planned = subprocess.run(
        [sys.executable, "-m", "moesd_dist", *ON_H200, *axes, *there],
        env=os.environ | OPEN | {"PYTHONPATH": str(Path(__file__).parents[1])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    out = " ".join(planned.stdout.split())
    assert planned.returncode == 0, planned.stderr
    assert f"the cluster at {h200_node}: 1 node, 16 CPUs, 8 GPUs" in out
    assert "assumed" not in out
    (starts,) = re.findall(r"engine starts (\d+)", out)
    assert int(starts) > 1  # several engines of one kind shorten the night


def test_a_wrong_configuration_is_refused_by_the_plan_too(cli: Cli) -> None:
    code, _, err = cli("sweep=adaptive", "sweep.batch_size=[8]", "plan=true")
    assert (code, len(err.splitlines())) == (2, 1)
