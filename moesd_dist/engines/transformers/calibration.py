"""What a rank finds when all ranks of a layout time their collectives, their memory and their cores at once."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import torch

from moesd_dist.engines.host import cpu_model
from moesd_dist.engines.neighbours import ForeignLoad
from moesd_dist.engines.transformers.group import RankGroup, join
from moesd_dist.engines.transformers.host import set_threads
from moesd_dist.engines.transformers.host_rates import (
    Call,
    done,
    multiplying,
    reading,
    streaming,
    sustained_s,
)
from moesd_dist.engines.transformers.timed_collectives import timed_collectives
from moesd_dist.records import Device, RankPlace
from moesd_dist.records.calibration import CollectiveTimes, RankRates

SIZES = tuple(64 * 4**step for step in range(9))  # 64 B to 4 MiB
MEET_S = 30.0  # the least that ranks wait for each other to start: they import torch
KERNEL_SIZE = 128  # float32 matrices of 64 KiB: they stay in a core's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured; `timeout_s` is how long a rank waits for another one."""

    device: Device = Device.cpu
    threads: int = 1
    sizes: tuple[int, ...] = SIZES  # bytes that a rank hands over
    repeats: int = 20
    read_bytes: int = 2**28  # well beyond a cache, and every rank of a host holds as many
    layer_bytes: int = 2**28  # of a layer's experts; ranks read their parts between collectives
    gemm_size: int = 1024
    span_s: float = 1.0  # of each of the three rates
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Of one rank; the collectives are those of all ranks, the same on each."""

    collectives: tuple[CollectiveTimes, ...]
    rates: RankRates
    cpu_model: str


def measure(place: RankPlace, *, nodes: int, effort: Effort) -> Findings:
    """To be called on every rank of a layout at once; RuntimeError if one is gone or late."""
    set_threads(effort.threads)
    foreign = ForeignLoad()
    meet_s = max(effort.timeout_s, MEET_S)
    device = torch.device(effort.device.value)
    group = join(place, device, timeout_s=effort.timeout_s, meet_s=meet_s)
    try:
        return Findings(
            collectives=_collectives(group, nodes, effort) if place.size > 1 else (),
            rates=_rates(group, nodes, effort, foreign),
            cpu_model=_processor(device),
        )
    finally:
        group.close()


def _rates(group: RankGroup, nodes: int, effort: Effort, foreign: ForeignLoad) -> RankRates:
    device = group.device
    read_s = _together_s(group, reading(effort.read_bytes, device), effort)
    gemm_s = _together_s(group, multiplying(effort.gemm_size, device=device), effort)
    kernel_s = _together_s(group, multiplying(KERNEL_SIZE, torch.float32, device), effort)
    return RankRates(
        ranks=group.size,
        nodes=nodes,
        rank=group.rank,
        host=platform.node(),
        read_bytes_per_s=effort.read_bytes / read_s,
        gemm_flops=2.0 * effort.gemm_size**3 / gemm_s,
        kernel_s=kernel_s,
        foreign_cores=foreign.cores(),
    )


def _together_s(group: RankGroup, once: Call, effort: Effort) -> float:
    """Seconds of one call while every rank calls; all begin after a barrier, for one span."""
    whole = done(once, group.device)
    whole()  # pages and code are warm
    group.barrier()
    return sustained_s(whole, span_s=effort.span_s)


def _processor(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()


def _collectives(group: RankGroup, nodes: int, effort: Effort) -> tuple[CollectiveTimes, ...]:
    """In a tight loop, or with a cache that work leaves alone, they take less than in a layer."""
    part = min(effort.layer_bytes // group.size, effort.read_bytes)
    work = done(streaming(part, of=effort.read_bytes, device=group.device), group.device)
    return tuple(
        timed_collectives(group, nodes, sizes=effort.sizes, repeats=effort.repeats, work=work)
    )
