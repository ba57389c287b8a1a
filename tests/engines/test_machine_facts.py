"""What is recorded of a machine's pace, and cores that an engine is kept on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from moesd_dist.engines.machine_facts import (
    allowed_cores,
    cores_of,
    cpu_facts,
    machine_facts,
    ranges,
)
from moesd_dist.engines.pinning import pin
from moesd_dist.records import Device

CPUS = "sys/devices/system/cpu"


@pytest.fixture
def machine(tmp_path):
    """Four cores on two nodes, as Linux lays them out."""
    files = {
        f"{CPUS}/smt/active": "1",
        f"{CPUS}/cpufreq/boost": "1",
        "sys/devices/system/node/node0/cpulist": "0-1",
        "sys/devices/system/node/node1/cpulist": "2-3",
        "proc/cpuinfo": "cpu MHz\t\t: 2000.5\n" * 4,
    }
    for core, khz in enumerate((2_400_000, 2_600_000, 3_000_000, 3_000_000)):
        files[f"{CPUS}/cpu{core}/cpufreq/scaling_cur_freq"] = str(khz)
        files[f"{CPUS}/cpu{core}/cpufreq/scaling_governor"] = "powersave" if core else "performance"
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    return tmp_path


def test_the_facts_are_those_of_the_cores_in_use(machine):
    assert cpu_facts(machine, {0, 1}) == {
        "cpu_affinity": "0-1",
        "cpu_clock_mhz": "2500",
        "cpu_governor": "performance, powersave",
        "smt": "on",
        "numa_nodes": "0",
        "boost": "on",
    }
    assert cpu_facts(machine, {1, 2})["numa_nodes"] == "0-1"


@pytest.mark.parametrize(("no_turbo", "boost"), [("0", "on"), ("1", "off")])
def test_intels_switch_is_the_other_way_round(machine, no_turbo, boost):
    (machine / CPUS / "intel_pstate").mkdir()
    (machine / CPUS / "intel_pstate/no_turbo").write_text(no_turbo)
    assert cpu_facts(machine, {0})["boost"] == boost


def test_a_virtual_machine_tells_its_clock_and_little_else(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("cpu MHz\t\t: 2000.0\ncpu MHz\t\t: 3000.0\n")
    found = {name: text for name, text in cpu_facts(tmp_path, {1}).items() if text}
    assert found == {"cpu_affinity": "1", "cpu_clock_mhz": "3000"}


def test_this_machine_tells_at_least_its_cores(monkeypatch):
    monkeypatch.setenv("MOESD_NODE", "n7")
    found = machine_facts(Device.cpu)
    assert found["machine.cpu_affinity"] == ranges(allowed_cores())
    assert found["machine.node"] == "n7"
    assert "machine.node_id" not in found
    assert all(found.values())


@pytest.mark.parametrize("text", ["0", "0-3", "0-3,8", "1,3,5-6"])
def test_lists_of_cores_are_read_and_written_alike(text):
    assert ranges(cores_of(text)) == text


def test_what_is_no_list_of_cores_is_refused():
    with pytest.raises(ValueError, match=r"reads like 0-3,8; got 'two'"):
        cores_of("two")


def test_a_pinned_process_and_its_threads_stay_on_their_cores():
    core = min(allowed_cores())
    program = (
        "import os, sys, threading, time\n"
        "threading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n"
        "from moesd_dist.engines.pinning import pin\n"
        "pin(sys.argv[1], threads=1)\n"
        "print([sorted(os.sched_getaffinity(int(t))) for t in os.listdir('/proc/self/task')])\n"
    )
    command = [sys.executable, "-c", program, str(core)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == str([[core]] * 2)


@pytest.mark.parametrize(
    ("cores", "threads", "message"),
    [
        pytest.param("100000", 1, r"cores of this process", id="no such core"),
        pytest.param("0", 2, r"a core for each of hardware.threads 2; got 0", id="too few"),
    ],
)
def test_cores_that_cannot_serve_are_refused(cores, threads, message):
    with pytest.raises(ValueError, match=message):
        pin(cores, threads=threads)
