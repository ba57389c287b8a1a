"""A calibration for a person: seconds by size with the law nearest to them, and rates by rank."""

from __future__ import annotations

from rich.table import Table

from moesd_dist.records.calibration import Calibration, CollectiveTimes, RankRates
from moesd_dist.theory.expert_parallel.measured_links import fit_alpha_beta


def collectives_of(calibration: Calibration, layout: tuple[int, int]) -> Table:
    """Of one layout (ranks, nodes): a row a size, medians with their quartiles."""
    timed = [c for c in calibration.collectives if (c.ranks, c.nodes) == layout]
    table = Table("bytes of a rank", *(c.collective for c in timed), title=named(*layout))
    for column in table.columns:
        column.justify = "right"
    sizes = max((c.row_bytes for c in timed), key=len, default=())
    for place, size in enumerate(sizes):
        table.add_row(_bytes(size), *(_spent(c, place) for c in timed))
    table.add_section()
    fits = [fit_alpha_beta(c.row_bytes, c.seconds) if len(c.row_bytes) > 1 else None for c in timed]
    table.add_row("latency", *(f"{_us(f.latency_s)} us" if f else "" for f in fits))
    table.add_row("bandwidth", *(f"{f.bytes_per_s / 1e6:.0f} MB/s" if f else "" for f in fits))
    counts = [c.seconds[0] for c in calibration.counts if (c.ranks, c.nodes) == layout]
    table.caption = "microseconds, median (quartiles), without waiting" + "".join(
        f"; counts {_us(seconds)}" for seconds in counts
    )
    return table


def rates_of(calibration: Calibration) -> Table:
    """Of every rank, while all ranks of its layout do the same; shares of what the one alone has."""
    alone = next(r for r in calibration.rates if (r.ranks, r.nodes) == (1, 1))
    title = f"{calibration.cpu_model}, {calibration.threads} threads a rank, {calibration.measured}"
    table = Table("ranks on nodes", "rank", "host", title=title)
    for name in ("read GB/s", "of alone", "GFLOP/s", "of alone", "kernel us", "x alone", "others"):
        table.add_column(name, justify="right")
    for rates in calibration.rates:
        table.add_row(*_rates(rates, alone))
    table.caption = "others: cores of the host that were kept busy by somebody else"
    return table


def _rates(own: RankRates, alone: RankRates) -> tuple[str, ...]:
    return (
        named(own.ranks, own.nodes),
        str(own.rank),
        own.host,
        f"{own.read_bytes_per_s / 1e9:.1f}",
        f"{own.read_bytes_per_s / alone.read_bytes_per_s:.2f}",
        f"{own.gemm_flops / 1e9:.0f}",
        f"{own.gemm_flops / alone.gemm_flops:.2f}",
        _us(own.kernel_s),
        f"{own.kernel_s / alone.kernel_s:.2f}",
        f"{own.foreign_cores:.1f}",
    )


def named(ranks: int, nodes: int) -> str:
    """A layout in words."""
    who = "1 rank" if ranks == 1 else f"{ranks} ranks"
    return f"{who} on {'1 node' if nodes == 1 else f'{nodes} nodes'}"


def _spent(times: CollectiveTimes, place: int) -> str:
    if place >= len(times.row_bytes):
        return ""
    low, middle, high = (_us(s[place]) for s in (times.low_s, times.seconds, times.high_s))
    return f"{middle} ({low}-{high})"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.0f}"


def _bytes(size: int) -> str:
    units = ((2**20, "Mi"), (2**10, "Ki"))
    return next((f"{size / unit:.0f} {name}B" for unit, name in units if size >= unit), f"{size} B")
