"""How fast this processor reads memory and multiplies in bfloat16, with the engine's own threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from moesd_dist.engines.transformers.host import set_threads

READ_BYTES = 2**30  # far beyond any cache
GEMM_SIZE = 2048  # three square matrices of 8 MiB
REPEATS = 7


def read_rate(
    threads: int, *, size: int = READ_BYTES, repeats: int = REPEATS
) -> tuple[float, float]:
    """Bytes/s of summing a buffer, median of the repeats, and their spread (see `_rate`)."""
    set_threads(threads)
    buffer = torch.ones(size // 4, dtype=torch.float32)
    return _rate(buffer.sum, work=float(size), repeats=repeats)


def gemm_rate(
    threads: int, *, size: int = GEMM_SIZE, repeats: int = REPEATS
) -> tuple[float, float]:
    """FLOP/s of a square bf16 product, a multiplication and an addition each counted."""
    set_threads(threads)
    left, right = (torch.ones(size, size, dtype=torch.bfloat16) for _ in range(2))
    return _rate(lambda: left @ right, work=2.0 * size**3, repeats=repeats)


def _rate(once: Callable[[], object], *, work: float, repeats: int) -> tuple[float, float]:
    """Work over the median of its seconds; half of the range of the rates over that rate."""
    once()  # pages, code and threads are warm
    rates = []
    for _ in range(repeats):
        began = time.perf_counter()
        once()
        rates.append(work / (time.perf_counter() - began))
    middle = median(rates)
    return middle, (max(rates) - min(rates)) / 2.0 / middle
