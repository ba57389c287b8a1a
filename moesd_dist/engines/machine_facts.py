"""What decides a machine's pace besides its name: cores, clocks and what holds them back, as text."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

from moesd_dist.engines import nvidia_smi
from moesd_dist.engines.nvidia_smi import Ask
from moesd_dist.records import Device

PREFIX = "machine."  # of these facts in what an engine says of itself
PLACES = {"MOESD_NODE": "node", "MOESD_NODE_ID": "node_id"}  # a cluster's worker has them set


def machine_facts(device: Device, run: Ask = nvidia_smi.ask) -> dict[str, str]:
    """As they are now, under `machine.<fact>`; what cannot be read is left out."""
    found = cpu_facts(Path("/"), allowed_cores()) | place_facts()
    if device is Device.cuda:
        found |= nvidia_smi.clocks(run)
    return {f"{PREFIX}{name}": text for name, text in found.items() if text}


def allowed_cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def place_facts() -> dict[str, str]:
    return {fact: os.environ.get(variable, "") for variable, fact in PLACES.items()}


def cpu_facts(root: Path, cores: Iterable[int]) -> dict[str, str]:
    """Of the given cores, from the files of Linux below `root`; empty where there is no such file."""
    cores, cpus = sorted(cores), root / "sys/devices/system/cpu"
    governors = {_read(cpus / f"cpu{core}/cpufreq/scaling_governor") for core in cores}
    return {
        "cpu_affinity": ranges(cores),
        "cpu_clock_mhz": _clock(root, cores),
        "cpu_governor": ", ".join(sorted(filter(None, governors))),
        "smt": {"1": "on", "0": "off"}.get(_read(cpus / "smt/active"), ""),
        "numa_nodes": _numa(root / "sys/devices/system/node", set(cores)),
        "boost": _boost(cpus),
    }


def ranges(cores: Iterable[int]) -> str:
    """Such as `0-3,8`, as Linux writes lists of cores."""
    spans: list[list[int]] = []
    for core in sorted(cores):
        if spans and core == spans[-1][1] + 1:
            spans[-1][1] = core
        else:
            spans.append([core, core])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def cores_of(text: str) -> set[int]:
    """The inverse; ValueError for what is no such list."""
    found: set[int] = set()
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    except ValueError:
        raise ValueError(f"a list of cores reads like 0-3,8; got {text!r}") from None
    return found


def _clock(root: Path, cores: list[int]) -> str:
    """The mean of the cores; in a virtual machine often the nominal clock, whatever it is."""
    cpus = root / "sys/devices/system/cpu"
    khz = [_read(cpus / f"cpu{core}/cpufreq/scaling_cur_freq") for core in cores]
    mhz = [float(text) / 1000 for text in khz if text]
    if not mhz:
        lines = _read(root / "proc/cpuinfo").splitlines()
        every = [line.partition(":")[2] for line in lines if line.startswith("cpu MHz")]
        mhz = [float(every[core]) for core in cores if core < len(every)]
    return f"{fmean(mhz):.0f}" if mhz else ""


def _numa(nodes: Path, cores: set[int]) -> str:
    lists = {folder.name[4:]: _read(folder / "cpulist") for folder in nodes.glob("node[0-9]*")}
    return ranges(int(n) for n, text in lists.items() if text and cores & cores_of(text))


def _boost(cpus: Path) -> str:
    if disabled := _read(cpus / "intel_pstate/no_turbo"):
        return "off" if disabled == "1" else "on"
    return {"1": "on", "0": "off"}.get(_read(cpus / "cpufreq/boost"), "")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
