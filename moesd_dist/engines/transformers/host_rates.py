"""How fast this processor reads memory and multiplies in bfloat16, with the engine's own threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import cycle
from statistics import median

import torch

from moesd_dist.engines.transformers.host import set_threads

READ_BYTES = 2**30  # far beyond any cache
GEMM_SIZE = 2048  # three square matrices of 8 MiB
REPEATS = 7
CPU = torch.device("cpu")

Call = Callable[[], object]


def read_rate(
    threads: int, *, size: int = READ_BYTES, repeats: int = REPEATS
) -> tuple[float, float]:
    """Bytes/s of summing a buffer, median of the repeats, and their spread (see `_rate`)."""
    set_threads(threads)
    return _rate(reading(size), work=float(size), repeats=repeats)


def gemm_rate(
    threads: int, *, size: int = GEMM_SIZE, repeats: int = REPEATS
) -> tuple[float, float]:
    """FLOP/s of a square bf16 product, a multiplication and an addition each counted."""
    set_threads(threads)
    return _rate(multiplying(size), work=2.0 * size**3, repeats=repeats)


def reading(size: int, device: torch.device = CPU) -> Call:
    """Sums a buffer of so many bytes."""
    return torch.ones(size // 4, dtype=torch.float32, device=device).sum


def streaming(size: int, *, of: int, device: torch.device = CPU) -> Call:
    """Sums the next so many bytes of a buffer of `of`, again and again from its start: none is cached."""
    parts = torch.ones(of // 4, dtype=torch.float32, device=device).split(max(1, size // 4))
    whole = cycle([part for part in parts if len(part) == len(parts[0])])
    return lambda: next(whole).sum()


def multiplying(size: int, dtype: torch.dtype = torch.bfloat16, device: torch.device = CPU) -> Call:
    """A product of two square matrices."""
    left, right = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    return lambda: left @ right


def done(once: Call, device: torch.device) -> Call:
    """The call with its work: a GPU's calls return before that."""
    if device.type != "cuda":
        return once

    def whole() -> None:
        once()
        torch.cuda.synchronize(device)

    return whole


def sustained_s(once: Call, *, span_s: float) -> float:
    """Seconds of one call, of all that fit into the span: waiting for a core is part of them.

    A median would leave it out: a short call mostly fits between two interruptions.
    """
    calls, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < span_s:
        once()
        calls += 1
    return spent / calls


def _rate(once: Call, *, work: float, repeats: int) -> tuple[float, float]:
    """Work over the median of its seconds; half of the range of the rates over that rate."""
    once()  # pages, code and threads are warm
    rates = []
    for _ in range(repeats):
        began = time.perf_counter()
        once()
        rates.append(work / (time.perf_counter() - began))
    middle = median(rates)
    return middle, (max(rates) - min(rates)) / 2.0 / middle
