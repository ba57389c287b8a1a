"""A sweep as a table that reads alike on a terminal and in a log."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.heading import heading, labels
from analysis.rows import BEST, Row, baseline_rows, interval_of, sd_rows
from analysis.series import axes, measured, timed
from analysis.verdict import verdict
from moesd_dist.records import Outcome, Role

__all__ = ["as_text", "labels", "sweep_table", "verdict"]

_WRAPS = {
    "workload": 6,
    "flags": 7,
    "expert_placement": 7,
    "all2all_backend": 7,
}  # columns that may be folded, down to this many characters
_FIGURES = (
    "acceptance_length",
    "sigma",
    "target_efficiency",
    "speedup",
    "tokens_per_s",
    "target_decode_ms",
    "activated_experts",
    "flags",
)
HEADERS = {
    "acceptance_length": "accept\nlength",
    "target_efficiency": "target\nefficiency",
    "speedup": "speedup ",  # over the figures, not over the mark of the best
    "activated_experts": "activated\nexperts",
    "tokens_per_s": "tokens/s",
    "target_decode_ms": "target\ndecode ms",
    "ep_size": "EP",
    "expert_placement": "place-\nment",
    "all2all_backend": "backend",
    "temperature": "temp",
    "workload": "work-\nload",
}


def sweep_table(outcomes: Sequence[Outcome]) -> Table:
    """One row an SD or control point; one a baseline where the sweep has nothing else.

    Points that could not be measured keep their row; why not is in the verdict.
    """
    names = axes(outcomes)
    rows = sd_rows(outcomes, names) or baseline_rows(outcomes, names)
    columns = _columns(rows)
    table = Table(
        title=_title(outcomes),
        title_justify="left",
        caption=_caption(outcomes, rows, columns),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        min_width=60,  # the title is wrapped at the table's width
    )
    for name in columns:
        _add_column(table, name)
    for row in rows:
        cells = [row.cells.get(name, "" if name == "flags" else "-") for name in columns]
        table.add_row(*map(Text, cells), style="bold green" if row.is_best else None)
    return table


def as_text(table: Table, width: int = 140) -> str:
    """Plain text without colour codes or spaces at the ends of lines."""
    console = Console(file=StringIO(), width=width, force_terminal=False, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def _columns(rows: Sequence[Row]) -> list[str]:
    """Those that any row fills: where the point lies, then its figures."""
    filled = dict.fromkeys(name for row in rows for name, text in row.cells.items() if text)
    places = [name for name in filled if name not in _FIGURES]
    return [*places, *(name for name in _FIGURES if name in filled)]


def _add_column(table: Table, name: str) -> None:
    table.add_column(
        HEADERS.get(name, name),
        justify="left" if name in _WRAPS else "right",
        no_wrap=name not in _WRAPS,
        overflow="fold" if name in _WRAPS else "ellipsis",
        min_width=_WRAPS.get(name),
    )


def _title(outcomes: Sequence[Outcome]) -> Text:
    text = Text("\n".join(heading(outcomes)), style="not italic")
    if loud := labels(outcomes):
        text.append("".join(f"\n*** {name} ***" for name in loud), style="bold red")
    return text


def _caption(outcomes: Sequence[Outcome], rows: Sequence[Row], columns: Sequence[str]) -> Text:
    lines = []
    every = sum(o.point.role is not Role.baseline for o in outcomes) or len(outcomes)
    if len(rows) < every:
        lines.append(f"{len(rows)} of {every} rows: the best of each gamma, and what failed; all are in the tracker")  # fmt: skip
    if any(row.is_best for row in rows):
        kind = "simulated" if "SIMULATED" in labels(outcomes) else "measured"
        lines.append(f"{BEST} highest {kind} speedup of its gamma")
    if "speedup" in columns:
        lines.append(_intervals(outcomes))
    if "activated_experts" in columns:
        order = ": decoding -> verification" if "gamma" in columns else ""
        lines.append(f"activated experts of a layer in one forward{order}")
    return Text("\n".join(lines), style="not italic")


def _intervals(outcomes: Sequence[Outcome]) -> str:
    known = timed(measured(outcomes))
    if all(m.point.simulated and interval_of(m) is None for m in known):
        return "simulated speedups have no interval"
    repeats = [len(m.repeats) for m in known]
    if not repeats or max(repeats) < 2:
        return "speedups of a single repeat have no interval"
    return "speedup with its 95% interval over paired repeats"
