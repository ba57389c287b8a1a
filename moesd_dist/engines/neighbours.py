"""Who else uses the machine: cores kept busy by others, and their processes on our GPUs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress

import psutil

from moesd_dist.engines import nvidia_smi
from moesd_dist.engines.nvidia_smi import GpuProcess
from moesd_dist.records import Device
from moesd_dist.records.neighbours import Neighbours

SWEEP = "MOESD_SWEEP"  # environment variable that all workers of a sweep share: none is foreign


def own_pids() -> set[int]:
    """This process, what it started, and the other workers of its sweep on this machine."""
    me = psutil.Process()
    family = {me.pid, *(child.pid for child in me.children(recursive=True))}
    sweep = os.environ.get(SWEEP)
    return family | ({pid for pid in psutil.pids() if _carries(pid, sweep)} if sweep else set())


def own_cpu_s() -> dict[int, float]:
    """Processor seconds so far of each of them that lives, by its pid."""
    me, now = os.getpid(), os.times()
    return {me: now.user + now.system} | {pid: _cpu_s(pid) for pid in own_pids() - {me}}


def spent(began: Mapping[int, float], now: Mapping[int, float]) -> float:
    """Seconds in between, of those that are still there; a new one counts from its start.

    What one used that has ended since is not known: it counts as others', never as time given back.
    """
    return sum(max(0.0, used - began.get(pid, 0.0)) for pid, used in now.items())


class ForeignLoad:
    """Cores kept busy by others: the machine's busy time less our own."""

    def __init__(self, own: Callable[[], Mapping[int, float]] = own_cpu_s) -> None:
        self._own = own
        self._began = self._now()

    def cores(self) -> float:
        """Mean since construction; at least 0. Clock ticks of 10 ms make short spans coarse."""
        (began, busy, own), (now, busy_now, own_now) = self._began, self._now()
        foreign_s = busy_now - busy - spent(own, own_now)
        return max(0.0, foreign_s / (now - began)) if now > began else 0.0

    def _now(self) -> tuple[float, float, Mapping[int, float]]:
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        # guest time is already inside user time on Linux
        double = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        return time.monotonic(), sum(times) - double - idle, self._own()


def look(device: Device, over_s: float) -> Neighbours:
    """Who is there now; the load of others is averaged over so many seconds, 0 leaves it out."""
    cores = 0.0
    if over_s > 0:
        load = ForeignLoad()
        time.sleep(over_s)
        cores = load.cores()
    if device is not Device.cuda:
        return Neighbours(cores=cores)
    found = foreign(nvidia_smi.processes(), nvidia_smi.own_gpus(), own_pids())
    return Neighbours(cores=cores, on_gpu=tuple(map(described, found)))


def foreign(
    processes: Iterable[GpuProcess], gpus: Collection[str], own: Collection[int]
) -> list[GpuProcess]:
    """Those on our GPUs that are not ours.

    Inside a container the driver still reports the host's pids, which name nobody here: ours
    cannot be told from others then, and none of them counts.
    """
    return [p for p in processes if p.gpu in gpus and p.pid not in own and psutil.pid_exists(p.pid)]


def described(process: GpuProcess) -> str:
    """Such as `pid 4711 (python) holds 4096 MiB of GPU-5f3c...`."""
    name = "?"
    with suppress(psutil.Error):
        name = psutil.Process(process.pid).name()
    return f"pid {process.pid} ({name}) holds {process.memory} of {process.gpu}"


def _carries(pid: int, sweep: str) -> bool:
    with suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environment:
        return f"{SWEEP}={sweep}".encode() in environment.read().split(b"\0")
    return False  # it has ended, or is another user's


def _cpu_s(pid: int) -> float:
    with suppress(psutil.Error):  # gone in the meantime
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    return 0.0
