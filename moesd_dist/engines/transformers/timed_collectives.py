"""Collectives of a group timed as a layer calls them: after work, or right after counts, waiting left out."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moesd_dist.engines.transformers.group import RankGroup
from moesd_dist.engines.transformers.host_rates import Call, done
from moesd_dist.records.calibration import (
    ALL_TO_ALL,
    COUNTS,
    GATHER,
    SCATTER,
    CollectiveTimes,
)

WARM_UP = 2  # rounds that open connections and touch pages; not kept
ROW_BYTES = 4  # shares are whole rows

Kind = tuple[str, int]  # a collective, and the bytes that a rank hands over
_COUNTS: Kind = (COUNTS, 0)  # an integer to each rank, however many there are


def timed_collectives(
    group: RankGroup, nodes: int, *, sizes: tuple[int, ...], repeats: int, work: Call
) -> Iterator[CollectiveTimes]:
    """Rounds over all collectives and sizes, so that a slow minute of the host harms all alike.

    `work` is what a rank does between two collectives.
    """
    kinds = _kinds(group, sizes)
    for _ in range(WARM_UP):
        _round(group, kinds, work)
    own = torch.tensor([_round(group, kinds, work) for _ in range(repeats)], dtype=torch.float64)
    everyone = torch.stack(group.gather(own.to(group.device))).cpu()
    seconds = _transfers(everyone, kinds)
    quartiles = np.quantile(seconds, (0.25, 0.5, 0.75), axis=0)
    errors = seconds.std(0) / max(1, repeats - 1) ** 0.5
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
            error_s=tuple(errors[chosen].tolist()),
        )


def _transfers(by_rank: Tensor, kinds: list[Kind]) -> npt.NDArray[np.float64]:
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


def _kinds(group: RankGroup, sizes: tuple[int, ...]) -> list[Kind]:
    """(Collective, bytes that a rank hands over): the nearest to each size that shares divide."""
    others, ranks = group.size - 1, group.size
    shares = {ALL_TO_ALL: others, GATHER: 1, SCATTER: ranks}
    found = [(COUNTS, 8 * others)]
    for collective, parts in shares.items():
        found += [(collective, _rows(size, parts) * parts * ROW_BYTES) for size in sizes]
    return list(dict.fromkeys(found))


def _rows(size: int, parts: int) -> int:
    return max(1, round(size / parts / ROW_BYTES))


def _round(group: RankGroup, kinds: list[Kind], work: Call) -> list[tuple[float, float, float]]:
    """Of each kind on this rank: work, the call after it, and the call after counts."""
    return [_seconds(group, kind, work) for kind in kinds]


def _seconds(group: RankGroup, kind: Kind, work: Call) -> tuple[float, float, float]:
    """All ranks begin the work together: they come from counts, which nobody leaves early."""
    call, counts = (done(_call(group, *k), group.device) for k in (kind, _COUNTS))
    counts()
    began = time.perf_counter()
    work()
    worked = time.perf_counter()
    call()
    late = time.perf_counter()
    work()
    counts()
    counted = time.perf_counter()
    call()
    return worked - began, late - worked, time.perf_counter() - counted


def _call(group: RankGroup, collective: str, size: int) -> Call:
    ranks = group.size
    if collective == COUNTS:
        counts = torch.ones(ranks, dtype=torch.int64, device=group.device)
        return lambda: group.counts(counts)
    if collective == ALL_TO_ALL:
        rows = _rows(size, ranks - 1)
        shares, sent = [rows] * ranks, _bytes(group, rows * ranks)
        return lambda: group.all_to_all(sent, shares, shares)
    if collective == GATHER:
        own = _bytes(group, _rows(size, 1))
        return lambda: group.all_gather(own, [len(own)] * ranks)
    part = _rows(size, ranks)
    shape, device = (part * ranks, ROW_BYTES // 2), group.device
    summands = torch.ones(shape, dtype=torch.bfloat16, device=device)
    return lambda: group.reduce_scatter(summands, [part] * ranks)


def _bytes(group: RankGroup, rows: int) -> Tensor:
    return torch.ones(rows, ROW_BYTES, dtype=torch.uint8, device=group.device)
