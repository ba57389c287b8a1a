"""Who else is on the machine: real processes on its cores, and GPUs as nvidia-smi prints them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid

import psutil
import pytest

from moesd_dist.engines.neighbours import (
    SWEEP,
    ForeignLoad,
    described,
    foreign,
    look,
    own_cpu_s,
    own_pids,
    spent,
)
from moesd_dist.engines.nvidia_smi import GpuProcess, ask, clocks, own_gpus, processes
from moesd_dist.records import Device
from moesd_dist.records.neighbours import Neighbours

FIRST = "GPU-5f3cb1d0-7a52-4a9e-9df0-0f6f4f2f7b11"
SECOND = "GPU-c2e0a4b7-1d57-4d3f-a0b9-6a5f5f6a1c22"
GPUS = f"0, {FIRST}\n1, {SECOND}\n"
APPS = f"4242, {FIRST}, 70412 MiB\n4243, {SECOND}, [N/A]\n"
BUSY = "while True: pass"


class Prints:
    """nvidia-smi with prepared answers; an unknown field fails the whole query, so prints nothing."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers

    def __call__(self, *arguments: str) -> str:
        asked = arguments[0].removeprefix("--query-").replace("=", "_").replace(".", "_")
        return next((a for start, a in self.answers.items() if asked.startswith(start)), "")


def an_orphan(environment: dict[str, str] | None = None) -> int:
    """A process that somebody else has taken in: no descendant of this one."""
    command = "sleep 60 >/dev/null 2>&1 & echo $!"
    env = os.environ | (environment or {})
    done = subprocess.run(["sh", "-c", command], env=env, capture_output=True, check=True)
    return int(done.stdout)


@pytest.fixture
def child():
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    yield process.pid
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("", [], id="no GPU, no driver, or nobody on it"),
        pytest.param("No running processes found\n", [], id="a message"),
        pytest.param(
            APPS,
            [
                GpuProcess(pid=4242, gpu=FIRST, memory="70412 MiB"),
                GpuProcess(pid=4243, gpu=SECOND, memory="[N/A]"),
            ],
            id="two, one whose memory is hidden",
        ),
        pytest.param(
            f"[Insufficient Permissions], {FIRST}, [Insufficient Permissions]\n", [], id="hidden"
        ),
    ],
)
def test_processes_are_read_as_nvidia_smi_prints_them(text, found):
    assert processes(Prints(**{"compute-apps": text})) == found


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        pytest.param(None, (FIRST, SECOND), id="unset: all"),
        pytest.param("", (), id="empty: none"),
        pytest.param("1", (SECOND,), id="by number"),
        pytest.param("1,0", (SECOND, FIRST), id="two, in their order"),
        pytest.param("GPU-5f3c", (FIRST,), id="by the beginning of its UUID"),
        pytest.param("MIG-6b1e", (), id="a slice is nobody else's"),
    ],
)
def test_our_gpus_are_those_that_cuda_shows_us(visible, found):
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert own_gpus(Prints(gpu_index=GPUS), environment) == found


def test_without_nvidia_smi_there_is_nobody(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert ask("--query-gpu=index") == ""
    assert look(Device.cuda, 0.0) == Neighbours()


def test_a_child_on_our_gpu_is_ours_and_an_orphan_is_not(child):
    orphan = an_orphan()
    try:
        on_gpu = [GpuProcess(pid=p, gpu=FIRST, memory="1 MiB") for p in (child, orphan)]
        assert [p.pid for p in foreign(on_gpu, {FIRST}, own_pids())] == [orphan]
        assert foreign(on_gpu, {SECOND}, own_pids()) == []
        text = described(on_gpu[1])
        assert text == f"pid {orphan} (sleep) holds 1 MiB of {FIRST}"
    finally:
        psutil.Process(orphan).kill()


def test_workers_of_one_sweep_are_not_foreign_to_each_other(monkeypatch):
    sweep = uuid.uuid4().hex
    orphan = an_orphan({SWEEP: sweep})
    try:
        assert orphan not in own_pids()
        monkeypatch.setenv(SWEEP, sweep)
        assert orphan in own_pids()
        monkeypatch.setenv(SWEEP, sweep + "0")
        assert orphan not in own_pids()
    finally:
        psutil.Process(orphan).kill()


def test_a_pid_of_another_namespace_counts_as_nobody():
    nowhere = max(psutil.pids()) + 100_000
    on_gpu = [GpuProcess(pid=nowhere, gpu=FIRST, memory="1 MiB")]
    assert foreign(on_gpu, {FIRST}, own_pids()) == []


def test_what_our_children_compute_is_not_foreign(child):
    began, load, until = own_cpu_s(), ForeignLoad(), time.monotonic() + 10.0
    while spent(began, own_cpu_s()) <= 0.1 and time.monotonic() < until:
        time.sleep(0.5)  # on a busy machine the child has to wait for its turn
    assert spent(began, own_cpu_s()) > 0.1  # the child's, since this process slept
    unowned = ForeignLoad(own=dict)
    time.sleep(0.5)
    assert child in own_cpu_s()
    assert load.cores() < unowned.cores() + 0.5


@pytest.mark.parametrize(
    ("began", "now", "seconds"),
    [
        pytest.param({1: 5.0, 2: 7.0}, {1: 5.5, 2: 7.25}, 0.75, id="both go on"),
        pytest.param({1: 5.0, 2: 4000.0}, {1: 5.5}, 0.5, id="one has ended"),
        pytest.param({1: 5.0}, {1: 5.5, 3: 0.25}, 0.75, id="one is new"),
        pytest.param({1: 5.0, 2: 4000.0}, {1: 5.5, 2: 0.25}, 0.5, id="a pid is another's now"),
    ],
)
def test_our_seconds_are_those_of_whoever_is_still_there(began, now, seconds):
    assert spent(began, now) == pytest.approx(seconds)


def test_a_child_that_ends_gives_no_time_back(child):
    time.sleep(1.0)
    load = ForeignLoad()
    psutil.Process(child).kill()
    time.sleep(0.3)
    assert load.cores() <= (psutil.cpu_count() or 1) + 0.1  # its whole second would be cores more


def test_clocks_and_what_slows_them_are_recorded_for_each_of_our_gpus():
    answers = Prints(
        gpu_index=GPUS,
        gpu_clocks_sm="1980 MHz, 1980 MHz, 2619 MHz, 312.41 W, 700.00 W, 45\n"
        "1410 MHz, 1980 MHz, 2619 MHz, 699.80 W, 700.00 W, 71\n",
        gpu_clocks_event_reasons="0x0000000000000001\n0x0000000000000024\n",
    )
    found = clocks(answers, {})
    assert found["gpu"] == f"{FIRST}, {SECOND}"
    assert found["gpu_clock_sm"] == "1980 MHz, 1410 MHz"
    assert found["gpu_celsius"] == "45, 71"
    assert found["gpu_slowed_by"] == "none, power cap + thermal, by software"


def test_an_older_driver_knows_the_old_name_of_throttling():
    answers = Prints(gpu_index=GPUS, gpu_clocks_throttle_reasons="0x0000000000000000\n[N/A]\n")
    found = clocks(answers, {})
    assert found == {"gpu": f"{FIRST}, {SECOND}", "gpu_slowed_by": "none, [N/A]"}


def test_without_a_gpu_there_are_no_clocks():
    assert clocks(Prints(), {}) == {}
