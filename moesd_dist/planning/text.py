"""What `plan=true` prints: points, cost, wall time, what a budget buys, and where that is known from."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from moesd_dist.planning.outlook import Outlook
from moesd_dist.records import SweepPoint
from moesd_dist.sweep.grouping import EngineKey
from moesd_dist.sweep.schedule.rehearsal import EngineRun
from moesd_dist.tracking.labels import run_name

LISTED = 12  # lines of a list before the rest is counted


def show(seen: Outlook, console: Console, *, budget_hours: float | None = None) -> None:
    title = "plan: nothing was started"
    if seen.simulated:
        title += "; SIMULATED points cost arithmetic only"
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, text in _rows(seen):
        table.add_row(name, text)
    console.print(table)
    for line in (*_impossible(seen), *_path(seen), *_bought(seen, budget_hours)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _rows(seen: Outlook) -> Iterator[tuple[str, str]]:
    yield "points", _points(seen)
    if not seen.works:
        yield "left", "nothing to measure"
        return
    yield "engine starts", _starts(seen)
    yield "nodes", "; ".join(seen.hand.notes)
    unit, name = ("GPU", "GPUs") if seen.on_gpus else ("node", "nodes")
    yield f"{unit}-hours", f"{seen.occupied_s / 3600:.3g}" + (" at most" if seen.chosen_of else "")
    rehearsal = seen.rehearsal
    least = f"no schedule is shorter than {duration(rehearsal.lower_bound_s)}"
    yield "wall time", f"{duration(rehearsal.makespan_s)}; {least}"
    yield f"idle {name}", f"{seen.idle_share:.0%} of their time until the end"
    yield "known from", _known_from(seen)


def _points(seen: Outlook) -> str:
    text = (
        f"{seen.points}: {seen.done} done, {seen.new} to measure, {len(seen.infeasible)} infeasible"
    )
    if seen.chosen_of:
        text += f"; chosen one by one among {seen.chosen_of} SD points: the dearest are counted"
    return text


def _starts(seen: Outlook) -> str:
    starts = seen.rehearsal.starts
    total = sum(starts.values())
    return str(total) if len(starts) == total else f"{total}, of {len(starts)} different engines"


def _known_from(seen: Outlook) -> str:
    parts = [f"{source or 'A GUESS'} ({count} groups)" for source, count in seen.sources]
    return "; ".join(parts)


def _impossible(seen: Outlook) -> Iterator[str]:
    lines = [f"infeasible: {run_name(found.point)} {found.reason}" for found in seen.infeasible]
    yield from _shortened(lines)


def _path(seen: Outlook) -> Iterator[str]:
    path = seen.rehearsal.critical_path
    if path:
        yield f"critical path, {duration(seen.rehearsal.makespan_s)}:"
        yield from _shortened([f"  {_engine(run)}" for run in path])


def _engine(run: EngineRun) -> str:
    longest = max(run.done, key=lambda each: each.work.seconds)
    groups = "1 group" if len(run.done) == 1 else f"{len(run.done)} groups"
    return (
        f"{duration(run.began_s)} to {duration(run.ended_s)}: {_key(run.key)} loads for "
        f"{duration(run.start_s)}, then {groups}, the longest B="
        f"{longest.work.group.baseline.batch_size} with {duration(longest.work.seconds)}"
    )


def _key(key: EngineKey) -> str:
    draft = f" + {key.draft.name}" if key.draft else ""
    layout = key.layout
    sizes = {"tp": layout.tp_size, "dp": layout.dp_size, "ep": layout.ep_size, "nodes": layout.nodes}  # fmt: skip
    text = "".join(f" {name}{size}" for name, size in sizes.items() if size > 1)
    return f"{key.engine} {key.target.name}{draft} on {key.hardware}{text}"


def _bought(seen: Outlook, budget_hours: float | None) -> Iterator[str]:
    if seen.bought is None:
        return
    unit = "GPU-hours" if seen.on_gpus else "node-hours"
    bought = seen.bought
    yield (
        f"{budget_hours:g} {unit} buy {bought.points} of {seen.new} points in "
        f"{duration(bought.ended_s)}, in this order:"
    )
    yield from _shortened([f"  {_members(work.group.wanted)}" for work in bought.works])


def _members(points: tuple[SweepPoint, ...]) -> str:
    return ", ".join(run_name(point) for point in points)


def _shortened(lines: list[str]) -> Iterator[str]:
    yield from lines[:LISTED]
    if len(lines) > LISTED:
        yield f"  and {len(lines) - LISTED} more"


def duration(seconds: float) -> str:
    """Such as `2 h 05 min`, `3 min 20 s` or `0.4 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
