"""What was measured of hosts and of the links between ranks, before any model ran on them."""

from __future__ import annotations

from dataclasses import dataclass

ALL_TO_ALL = "all_to_all"
ALL_GATHER = "allgather_reducescatter"


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveTimes:
    """One collective over `ranks` ranks on `nodes` nodes, by size; tuples run in parallel.

    `row_bytes` is what one rank hands to all *other* ranks together in one call: for all_to_all an
    equal share to each, for allgather_reducescatter the rank's whole contribution. Seconds are of
    the slowest rank, the median over repeats, with their first and third quartile.
    """

    collective: str  # ALL_TO_ALL, or one of its alternative: "all_gather", "reduce_scatter"
    ranks: int
    nodes: int
    row_bytes: tuple[int, ...]
    seconds: tuple[float, ...]
    low_s: tuple[float, ...]
    high_s: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRates:
    """What one rank does while all ranks of its layout do the same: cores and memory are shared."""

    ranks: int
    nodes: int
    host: str
    read_bytes_per_s: float
    gemm_flops: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Of one cluster on one day; layouts are told apart by (ranks, nodes)."""

    measured: str  # ISO date and time, UTC
    threads: int
    collectives: tuple[CollectiveTimes, ...]
    rates: tuple[RankRates, ...]  # one of every rank of every layout; (1, 1) is a rank alone
