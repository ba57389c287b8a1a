"""What was measured of hosts and of the links between ranks, before any model ran on them."""

from __future__ import annotations

from dataclasses import dataclass

ALL_TO_ALL = "all_to_all"
ALL_GATHER = "allgather_reducescatter"
COUNTS, GATHER, SCATTER = "counts", "all_gather", "reduce_scatter"  # further collectives


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveTimes:
    """One collective over `ranks` ranks on `nodes` nodes, by size; tuples run in parallel.

    `row_bytes` is what one rank hands over in one call: for all_to_all to all *other* ranks
    together, an equal share to each (it keeps as large a share for itself); for all_gather its own
    rows, which all others get; for reduce_scatter its summands for all ranks, its own included; for
    counts an integer to each other rank. Between collectives every rank reads its part of the
    calibration's `layer_bytes`, as a layer reads experts: in a tight loop, where threads never fall
    asleep and caches stay warm, the same call takes a fraction of the time. Counts come after that work, all_gather right after counts,
    reduce_scatter after work, and all_to_all is the mean of both, since a layer has one of each.
    Seconds are without waiting and the mean over ranks (counts: of the rank that came last): the
    median over repeats, their quartiles, and their mean.
    """

    collective: str  # ALL_TO_ALL, GATHER or SCATTER by several sizes; COUNTS by one
    ranks: int
    nodes: int
    row_bytes: tuple[int, ...]
    seconds: tuple[float, ...]
    low_s: tuple[float, ...]
    high_s: tuple[float, ...]
    mean_s: tuple[float, ...] = ()  # a forward adds up many calls, the slow ones too
    error_s: tuple[float, ...] = ()  # standard error of that mean, by its scatter over repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRates:
    """What one rank does while all ranks of its layout do the same: cores and memory are shared."""

    ranks: int
    nodes: int
    host: str
    read_bytes_per_s: float
    gemm_flops: float
    rank: int = 0
    kernel_s: float = 0.0  # of a fixed product that stays in the cache: cores without memory
    foreign_cores: float = 0.0  # of its host, kept busy by others while it measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Of one cluster on one day; layouts are told apart by (ranks, nodes)."""

    measured: str  # ISO date and time, UTC
    threads: int
    collectives: tuple[CollectiveTimes, ...]
    rates: tuple[RankRates, ...]  # one of every rank of every layout; (1, 1) is a rank alone
    counts: tuple[CollectiveTimes, ...] = ()  # an integer to each other rank: one size
    cpu_model: str = ""  # of all hosts, each once
    layer_bytes: int = 0  # that all ranks together read between two collectives; 0: not known

    @property
    def layouts(self) -> tuple[tuple[int, int], ...]:
        """(Ranks, nodes), in the order in which they were measured."""
        return tuple(dict.fromkeys((r.ranks, r.nodes) for r in self.rates))

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(sorted({r.host for r in self.rates}))
