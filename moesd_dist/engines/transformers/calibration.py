"""What a rank finds when all ranks of a layout time their collectives, their memory and their cores at once."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moesd_dist.engines.host import cpu_model
from moesd_dist.engines.neighbours import ForeignLoad
from moesd_dist.engines.transformers.group import RankGroup, join
from moesd_dist.engines.transformers.host import set_threads
from moesd_dist.engines.transformers.host_rates import Call, multiplying, reading, sustained_s
from moesd_dist.records import RankPlace
from moesd_dist.records.calibration import (
    ALL_TO_ALL,
    COUNTS,
    GATHER,
    SCATTER,
    CollectiveTimes,
    RankRates,
)

SIZES = tuple(64 * 4**step for step in range(9))  # 64 B to 4 MiB
WARM_UP = 2  # rounds that open connections and touch pages; not kept
MEET_S = 30.0  # the least that ranks wait for each other to start: they import torch
ROW_BYTES = 4  # shares are whole rows
WORK_BYTES = 2**24  # read between two collectives: half a millisecond or more
KERNEL_SIZE = 128  # float32 matrices of 64 KiB: they stay in a core's cache


_WORK = torch.ones(WORK_BYTES // 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured; `timeout_s` is how long a rank waits for another one."""

    threads: int = 1
    sizes: tuple[int, ...] = SIZES  # bytes that a rank hands over
    repeats: int = 20
    read_bytes: int = 2**28  # well beyond a cache, and every rank of a host holds as many
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
    group = join(place, torch.device("cpu"), timeout_s=effort.timeout_s, meet_s=meet_s)
    try:
        return Findings(
            collectives=tuple(_collectives(group, nodes, effort)) if place.size > 1 else (),
            rates=_rates(group, nodes, effort, foreign),
            cpu_model=cpu_model(),
        )
    finally:
        group.close()


def _rates(group: RankGroup, nodes: int, effort: Effort, foreign: ForeignLoad) -> RankRates:
    read_s = _together_s(group, reading(effort.read_bytes), effort)
    gemm_s = _together_s(group, multiplying(effort.gemm_size), effort)
    kernel_s = _together_s(group, multiplying(KERNEL_SIZE, torch.float32), effort)
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
    once()  # pages and code are warm
    group.barrier()
    return sustained_s(once, span_s=effort.span_s)


def _collectives(group: RankGroup, nodes: int, effort: Effort) -> Iterator[CollectiveTimes]:
    """Rounds over all collectives and sizes, so that a slow minute of the host harms all alike."""
    kinds = _kinds(group, effort.sizes)
    for _ in range(WARM_UP):
        _round(group, kinds)
    own = torch.tensor([_round(group, kinds) for _ in range(effort.repeats)], dtype=torch.float64)
    seconds = _transfers(torch.stack(group.gather(own)), kinds)
    quartiles = np.quantile(seconds, (0.25, 0.5, 0.75), axis=0)
    for collective in dict.fromkeys(name for name, _ in kinds):
        chosen = [place for place, (name, _) in enumerate(kinds) if name == collective]
        low, middle, high = (tuple(quartile[chosen].tolist()) for quartile in quartiles)
        yield CollectiveTimes(
            collective=collective,
            ranks=group.size,
            nodes=nodes,
            row_bytes=tuple(kinds[place][1] for place in chosen),
            seconds=middle,
            low_s=low,
            high_s=high,
            mean_s=tuple(seconds.mean(0)[chosen].tolist()),
        )


def _transfers(by_rank: Tensor, kinds: list[tuple[str, int]]) -> npt.NDArray[np.float64]:
    """Seconds without waiting, [repeat, kind], of [rank, repeat, kind, (work, late, prompt)].

    As `records.exchange` has it: who comes last to the counts waits for nobody, and after work a
    rank waits for as long as the longest work exceeds its own.
    """
    work, late, prompt = by_rank.unbind(-1)
    waiting = torch.minimum(late, work.amax(0) - work)
    last, dispatched, combined = late.amin(0), prompt.mean(0), (late - waiting).mean(0)
    by_kind = {
        COUNTS: last,
        ALL_TO_ALL: (dispatched + combined) / 2,  # a layer has one of each
        GATHER: dispatched,
        SCATTER: combined,
    }
    columns = [by_kind[name][:, place] for place, (name, _) in enumerate(kinds)]
    found: npt.NDArray[np.float64] = torch.stack(columns, -1).numpy()
    return found


def _kinds(group: RankGroup, sizes: tuple[int, ...]) -> list[tuple[str, int]]:
    """(Collective, bytes that a rank hands over): the nearest to each size that shares divide."""
    others, ranks = group.size - 1, group.size
    shares = {ALL_TO_ALL: others, GATHER: 1, SCATTER: ranks}
    found = [(COUNTS, 8 * others)]
    for collective, parts in shares.items():
        found += [(collective, _rows(size, parts) * parts * ROW_BYTES) for size in sizes]
    return list(dict.fromkeys(found))


def _rows(size: int, parts: int) -> int:
    return max(1, round(size / parts / ROW_BYTES))


def _round(group: RankGroup, kinds: list[tuple[str, int]]) -> list[tuple[float, float, float]]:
    """Of each kind on this rank: work, the call after it, and the call after counts."""
    return [_seconds(group, collective, size) for collective, size in kinds]


def _seconds(group: RankGroup, collective: str, size: int) -> tuple[float, float, float]:
    """All ranks begin the work together: they come from counts, which nobody leaves early."""
    call = _call(group, collective, size)
    group.counts(_integers(group))
    began = time.perf_counter()
    _between()
    worked = time.perf_counter()
    call()
    late = time.perf_counter()
    _between()
    group.counts(_integers(group))
    counted = time.perf_counter()
    call()
    return worked - began, late - worked, time.perf_counter() - counted


def _between() -> None:
    """What a layer does between collectives: caches and sleeping threads are not as a tight loop has them."""
    _WORK.sum()


def _call(group: RankGroup, collective: str, size: int) -> Call:
    ranks = group.size
    if collective == COUNTS:
        counts = _integers(group)
        return lambda: group.counts(counts)
    if collective == ALL_TO_ALL:
        rows = _rows(size, ranks - 1)
        shares, sent = [rows] * ranks, _bytes(rows * ranks)
        return lambda: group.all_to_all(sent, shares, shares)
    if collective == GATHER:
        own = _bytes(_rows(size, 1))
        return lambda: group.all_gather(own, [len(own)] * ranks)
    part = _rows(size, ranks)
    summands = torch.ones(part * ranks, ROW_BYTES // 2, dtype=torch.bfloat16)
    return lambda: group.reduce_scatter(summands, [part] * ranks)


def _bytes(rows: int) -> Tensor:
    return torch.ones(rows, ROW_BYTES, dtype=torch.uint8)


def _integers(group: RankGroup) -> Tensor:
    return torch.ones(group.size, dtype=torch.int64)
