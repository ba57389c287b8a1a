"""What `jobs.calibrate_cpu` measured on this host, kept where the next run finds it."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from moesd_dist.records.serial import from_plain
from moesd_dist.theory.devices.device import DeviceFigures

COMMAND = "python -m jobs.calibrate_cpu"

# A processor is one device: tp_size is 1 and no link is ever used. The figures need one, so it is
# stated as free; a layout with tp_size above 1 is refused for a CPU.
NO_LINK_BYTES_PER_S, NO_LINK_S = 1e15, 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuRates:
    """Measured, so achieved and not peak; spreads are half the range of the repeats over the median."""

    host: str
    cpu_model: str
    threads: int
    read_bytes_per_s: float
    read_spread: float
    gemm_flops: float  # bf16
    gemm_spread: float
    memory_bytes: int
    clock_hz: float

    @property
    def figures(self) -> DeviceFigures:
        return DeviceFigures(
            flops=self.gemm_flops,
            bytes_per_s=self.read_bytes_per_s,
            memory_bytes=float(self.memory_bytes),
            clock_hz=self.clock_hz,
            link_bytes_per_s=NO_LINK_BYTES_PER_S,
            link_latency_s=NO_LINK_S,
        )


def cache_folder() -> Path:
    """$MOESD_CACHE, else in the user's cache folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("MOESD_CACHE") or home / "moesd-dist")


def cache_file(threads: int) -> Path:
    """One a host and number of threads."""
    return cache_folder() / f"cpu-{platform.node()}-{threads}t.json"


def write(rates: CpuRates, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(rates), indent=1) + "\n", encoding="utf-8")
    return file


def read(*, threads: int, cpu_model: str) -> CpuRates:
    """ValueError if nothing was measured here, or if it was on another processor."""
    file = cache_file(threads)
    if not file.is_file():
        raise ValueError(
            f"this CPU's figures with {threads} threads are not in {file}; "
            f"run {COMMAND} --threads {threads}"
        )
    try:
        rates = from_plain(CpuRates, json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{file} cannot be read ({error}); run {COMMAND} again") from error
    if rates.cpu_model != cpu_model:
        raise ValueError(
            f"{file} is of a {rates.cpu_model}, this is a {cpu_model}; run {COMMAND} again"
        )
    return rates
