"""The machine under the measurement: threads, memory, names, and who else keeps its cores busy."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path

import psutil
import torch

PACKAGES = ("moesd-dist", "torch", "transformers", "tokenizers", "safetensors")


class ForeignLoad:
    """Cores kept busy by others: the machine's busy time less this process's own."""

    def __init__(self) -> None:
        self._began = self._now()

    def cores(self) -> float:
        """Mean since construction; at least 0. Clock ticks of 10 ms make short spans coarse."""
        wall, busy, own = (b - a for a, b in zip(self._began, self._now(), strict=True))
        return max(0.0, (busy - own) / wall) if wall > 0 else 0.0

    @staticmethod
    def _now() -> tuple[float, float, float]:
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        # guest time is already inside user time on Linux
        double = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        own = os.times()
        return time.monotonic(), sum(times) - double - idle, own.user + own.system


def set_threads(threads: int) -> None:
    """One OpenMP thread spins a core even when it waits; two of them on a busy core crawl."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    torch.set_num_threads(threads)


def available_bytes(device: torch.device) -> int:
    """Free memory on the device: what a model may still take."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return int(psutil.virtual_memory().available)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_model()


def cpu_model() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def describe(device: torch.device) -> dict[str, str]:
    """Host, device and versions, as they go into every record."""
    found = {"host": platform.node(), "device_name": device_name(device)}
    for package in PACKAGES:
        try:
            found[f"version.{package}"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
