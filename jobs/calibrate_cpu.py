"""Measures what this processor reads and multiplies, for predictions with hardware=cpu.

    python -m jobs.calibrate_cpu --threads 1

Takes some seconds on a quiet machine and keeps the result by host and threads, in
~/.cache/moesd-dist ($MOESD_CACHE is another folder, --out another file). The figures are measured,
so conf/hardware/cpu.yaml sets efficiencies of the engine on top, not of the processor.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from moesd_dist import cpu_cache
from moesd_dist.cpu_cache import CpuRates
from moesd_dist.engines.transformers import host_rates
from moesd_dist.tracking.provenance import cpu_model

UNKNOWN_CLOCK_HZ = 1e9  # where the system does not tell; cpu.yaml lets nothing follow the clock


def calibrate(
    threads: int,
    *,
    read_bytes: int = host_rates.READ_BYTES,
    gemm_size: int = host_rates.GEMM_SIZE,
    repeats: int = host_rates.REPEATS,
) -> CpuRates:
    """Everything that `DeviceFigures` asks of this host."""
    read, read_spread = host_rates.read_rate(threads, size=read_bytes, repeats=repeats)
    gemm, gemm_spread = host_rates.gemm_rate(threads, size=gemm_size, repeats=repeats)
    return CpuRates(
        host=platform.node(),
        cpu_model=cpu_model(),
        threads=threads,
        read_bytes_per_s=read,
        read_spread=read_spread,
        gemm_flops=gemm,
        gemm_spread=gemm_spread,
        memory_bytes=int(psutil.virtual_memory().total),
        clock_hz=clock_hz(),
    )


def clock_hz() -> float:
    """The highest the system states, else the present one."""
    found = psutil.cpu_freq()
    megahertz = (found.max or found.current) if found else 0.0
    return float(megahertz) * 1e6 or UNKNOWN_CLOCK_HZ


def table_of(rates: CpuRates) -> Table:
    table = Table("figure", "measured", "spread", title=f"{rates.cpu_model}, threads {rates.threads}")  # fmt: skip
    table.add_row("read", f"{rates.read_bytes_per_s / 1e9:.1f} GB/s", f"{rates.read_spread:.1%}")
    table.add_row("bf16 GEMM", f"{rates.gemm_flops / 1e9:.0f} GFLOP/s", f"{rates.gemm_spread:.1%}")
    table.add_row("memory", f"{rates.memory_bytes / 2**30:.1f} GiB", "")
    table.add_row("clock", f"{rates.clock_hz / 1e9:.2f} GHz", "")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, help="as hardware.threads")
    parser.add_argument("--out", type=Path, help="another file than the cache's")
    parser.add_argument("--read-mib", type=int, default=host_rates.READ_BYTES // 2**20)
    parser.add_argument("--gemm-size", type=int, default=host_rates.GEMM_SIZE)
    parser.add_argument("--repeats", type=int, default=host_rates.REPEATS)
    options = parser.parse_args()
    for name in ("threads", "read_mib", "gemm_size", "repeats"):
        if (given := getattr(options, name)) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {given}")
    rates = calibrate(
        options.threads,
        read_bytes=options.read_mib * 2**20,
        gemm_size=options.gemm_size,
        repeats=options.repeats,
    )
    Console().print(table_of(rates))
    file = cpu_cache.write(rates, options.out or cpu_cache.cache_file(options.threads))
    print(f"saved {file}")


if __name__ == "__main__":
    main()
