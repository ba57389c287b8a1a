"""A sweep as a table that reads alike on a terminal and in a log."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import zip_longest

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.heading import heading, labels
from analysis.rows import Columns, Row, baseline_rows, sd_rows
from analysis.series import axes, label
from analysis.verdict import verdict
from moesd_dist.records import Outcome, Role

__all__ = ["as_text", "labels", "sweep_table", "verdict"]

_WRAPPED = {"workload", "flags"}
_HEADERS = {
    "acceptance_length": "acceptance\nlength",
    "target_efficiency": "target\nefficiency",
    "speedup": "speedup\n[95% interval]",
    "activated_experts": "activated\nexperts",
    "decode_ms": "target\ndecode ms",
    "temperature": "temper-\nature",
}


def sweep_table(outcomes: Sequence[Outcome]) -> Table:
    """One row an SD or control point; one a baseline where the sweep has nothing else.

    Points that could not be measured keep their row; why not is in the verdict.
    """
    names = axes(outcomes)
    rows = sd_rows(outcomes, names) or baseline_rows(outcomes, names)
    columns = _columns(rows, [label(name) for name in names])
    table = Table(
        title=_title(outcomes),
        caption=_caption(outcomes, columns),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    for name in columns:
        justify = "left" if name in _WRAPPED else "right"
        header = _HEADERS.get(name, name)
        table.add_column(header, justify=justify, no_wrap=name not in _WRAPPED, overflow="fold")
    for row in rows:
        cells = (row.cells.get(name, "-" if name != "flags" else "") for name in columns)
        table.add_row(*cells, style="bold" if row.is_best else None)
    return table


def as_text(table: Table, width: int = 140) -> str:
    """The table as plain text, without colour codes."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def _columns(rows: Sequence[Row], varying: Sequence[str]) -> Columns:
    """Those with something to show, the sweep's axes before the figures."""
    present = dict.fromkeys(name for row in rows for name in row.cells)
    shown = [name for name in present if any(row.cells.get(name) for row in rows)]
    figures = [name for name in shown if name not in varying and name != "flags"]
    return [*(n for n in varying if n in shown), *figures, *(["flags"] if "flags" in shown else [])]
