"""The machine under a measurement, whatever engine measures: its names, and who else uses its cores."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

import psutil


def own_cpu_s() -> float:
    """Processor seconds of this process alone."""
    own = os.times()
    return own.user + own.system


def tree_cpu_s() -> float:
    """Processor seconds of this process and of all that it started and that still live."""
    me = psutil.Process()
    return own_cpu_s() + sum(_cpu_s(child) for child in me.children(recursive=True))


class ForeignLoad:
    """Cores kept busy by others: the machine's busy time less our own."""

    def __init__(self, own: Callable[[], float] = own_cpu_s) -> None:
        self._own = own
        self._began = self._now()

    def cores(self) -> float:
        """Mean since construction; at least 0. Clock ticks of 10 ms make short spans coarse."""
        wall, busy, own = (b - a for a, b in zip(self._began, self._now(), strict=True))
        return max(0.0, (busy - own) / wall) if wall > 0 else 0.0

    def _now(self) -> tuple[float, float, float]:
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        # guest time is already inside user time on Linux
        double = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        return time.monotonic(), sum(times) - double - idle, self._own()


def cpu_model() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Those installed, under `version.<package>`, as they go into every record."""
    found = {}
    for package in packages:
        try:
            found[f"version.{package}"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:  # gone in the meantime
        return 0.0
    return float(times.user + times.system)
