"""The verdict as tables: one row a quantity, and one row a point."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO

from rich import box
from rich.table import Table

from analysis.ep_validation.comparison import NAMES, Comparison
from analysis.ep_validation.verdict import Result, Verdict
from moesd_dist.records.forecast import PointForecast

_STYLES = {Result.HOLDS: "green", Result.CONTRADICTED: "bold red", Result.OPEN: "yellow"}
_HEADERS = (
    "quantity", "points", "within\ntolerance", "worst\nerror", "median\nerror", "tolerance",
    "measured\nhalf-width", "in foretold\ninterval", "verdict",
)  # fmt: skip
_HEADS = {  # narrow ones
    "rank_activated_experts": "experts of\nmean rank",
    "max_rank_activated_experts": "experts of\nbusiest rank",
    "load_imbalance": "load\nimbalance",
    "communication_s": "communi-\ncation s",
    "target_efficiency": "target\nefficiency",
    "speedup": "speedup",
}
_COLUMNS = (
    "ranks", "nodes", "batch_size", "gamma", "quantity", "predicted", "predicted_low",
    "predicted_high", "measured", "measured_low", "measured_high", "error", "tolerance", "within",
)  # fmt: skip


def verdict_table(found: Sequence[Verdict]) -> Table:
    table = _table("Verdict: foretold from one rank and the calibration, then measured", _HEADERS)
    for v in found:
        table.add_row(*_cells(v), style=_STYLES[v.result])
    return table


def point_table(comparisons: Sequence[Comparison], *, errors_only: bool) -> Table:
    """Foretold -> measured, with the error; an error beyond the tolerance is marked."""
    names = list(dict.fromkeys(c.name for c in comparisons))
    heads = ["EP", "nodes", "B", "gamma", *(_HEADS[n] for n in names)]
    what = "Error of what was foretold" if errors_only else "Foretold -> measured"
    table = _table(f"{what}; ! beyond the tolerance", heads)
    places: dict[str, PointForecast] = {c.place.point_id: c.place for c in comparisons}
    text = _error if errors_only else _cell
    cells = {(c.place.point_id, c.name): text(c) for c in comparisons}
    for key, place in places.items():
        where = map(str, (place.ranks, place.nodes, place.batch_size, place.gamma))
        table.add_row(*where, *(cells.get((key, name), "-") for name in names))
    return table


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """One line a point and quantity, every number in full."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for c in comparisons:
        interval = (c.interval.low, c.interval.high) if c.interval else ("", "")
        where = (c.place.ranks, c.place.nodes, c.place.batch_size, c.place.gamma, c.name)
        said = (c.predicted.value, c.predicted.low, c.predicted.high)
        writer.writerow((*where, *said, c.measured, *interval, c.error, c.tolerance, c.within))
    return text.getvalue()


def _cells(v: Verdict) -> tuple[str, ...]:
    noise = "-" if v.noise is None else f"{v.noise:.1%}" + (" !" if v.noisy else "")
    return (
        NAMES[v.name],
        str(v.points),
        str(v.within),
        f"{v.worst.error:+.1%}",
        f"{v.median_error:.1%}",
        f"{v.tolerance:.0%}",
        noise,
        f"{v.covered} of {v.points}",
        v.result.value,
    )


def _cell(c: Comparison) -> str:
    return f"{_short(c.predicted.value)} -> {_short(c.measured)}  {_error(c)}"


def _error(c: Comparison) -> str:
    return f"{c.error:+.1%}{' ' if c.within else '!'}"


def _short(value: float) -> str:
    return f"{value * 1e3:.3g}m" if value < 0.1 else f"{value:.3g}"


def _table(title: str, heads: Sequence[str]) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="not italic",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place == 0 else "right", no_wrap=True)
    return table
