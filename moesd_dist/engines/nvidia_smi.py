"""What nvidia-smi says of this process's GPUs: who is on them, and how fast they run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Ask = Callable[..., str]
"""nvidia-smi with these arguments: what it prints, nothing if it is absent or fails."""

ANSWER_S = 20.0
CLOCKS = {
    "clocks.sm": "gpu_clock_sm",
    "clocks.max.sm": "gpu_clock_sm_max",
    "clocks.mem": "gpu_clock_memory",
    "power.draw": "gpu_power",
    "power.limit": "gpu_power_limit",
    "temperature.gpu": "gpu_celsius",
}
# NVML's bits; the lowest says that the GPU rests.
SLOWED_BY = {
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal, by software",
    0x40: "thermal, by hardware",
    0x80: "power brake",
    0x100: "display clocks",
}
# Renamed by newer drivers. An unknown field fails the whole query, so each is asked for on its own.
THROTTLING = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    pid: int
    gpu: str  # its UUID
    memory: str  # as printed, such as "4096 MiB" or "[N/A]"


def ask(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["nvidia-smi", *arguments], capture_output=True, timeout=ANSWER_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")


def own_gpus(run: Ask = ask, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """UUIDs of the GPUs that CUDA shows to this process; of a MIG slice none: it has no neighbours."""
    known = dict(_rows(run("--query-gpu=index,uuid", "--format=csv,noheader"), columns=2))
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(known.values())
    return tuple(
        uuid
        for name in (part.strip() for part in visible.split(","))
        for index, uuid in known.items()
        if name and (index == name or uuid.startswith(name))
    )


def processes(run: Ask = ask) -> list[GpuProcess]:
    """Everything that computes on any GPU of the machine, ours included."""
    text = run("--query-compute-apps=pid,gpu_uuid,used_memory", "--format=csv,noheader")
    return [
        GpuProcess(pid=int(pid), gpu=gpu, memory=memory)
        for pid, gpu, memory in _rows(text, columns=3)
        if pid.isdigit()
    ]


def clocks(run: Ask = ask, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Clocks, power and what slows them down, one value a GPU; nothing where there is none."""
    gpus = own_gpus(run, environment)
    if not gpus:
        return {}
    chosen = ("-i", ",".join(gpus), "--format=csv,noheader")
    rows = _rows(run(f"--query-gpu={','.join(CLOCKS)}", *chosen), columns=len(CLOCKS))
    columns = zip(*rows, strict=True) if rows else ()
    found = dict(zip(CLOCKS.values(), map(", ".join, columns), strict=False))
    answers = (_rows(run(f"--query-gpu={field}", *chosen), columns=1) for field in THROTTLING)
    masks = next(filter(None, answers), [])
    slowed = {"gpu_slowed_by": ", ".join(_reasons(mask) for (mask,) in masks)} if masks else {}
    return {"gpu": ", ".join(gpus)} | found | slowed


def _reasons(mask: str) -> str:
    """`none`, or names joined by +; what is no hexadecimal number stays as it is."""
    try:
        bits = int(mask, 16)
    except ValueError:
        return mask
    return " + ".join(name for bit, name in SLOWED_BY.items() if bits & bit) or "none"


def _rows(text: str, *, columns: int) -> list[list[str]]:
    """Lines of so many comma-separated values; others are messages."""
    rows = [
        [cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()
    ]
    return [row for row in rows if len(row) == columns]
