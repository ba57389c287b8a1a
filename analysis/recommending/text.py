"""A recommendation as a table and sentences that an engineer can act on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from analysis.heading import MEANINGS, source
from analysis.recommending.basis import Basis
from analysis.recommending.limits import sentence
from moesd_dist.theory.choices.decision import Rule
from moesd_dist.theory.choices.recommendation import Choice, StaticChoice


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Neighbouring batch sizes of one gamma and the same rivals; `last` reaches to the next one."""

    first: int
    last: int
    choices: tuple[Choice, ...]

    @property
    def gamma(self) -> int:
        return self.choices[0].gamma

    @property
    def open(self) -> Choice | None:
        """Where a rival is likeliest to be better; None if decided."""
        likeliest = max(self.choices, key=lambda choice: choice.chance)
        return None if self.choices[0].decided else likeliest


def stretches(choices: Sequence[Choice]) -> list[Stretch]:
    """In the order of batch sizes, covering 1 to the largest."""
    groups = [tuple(g) for _, g in groupby(choices, key=lambda c: (c.gamma, c.rivals))]
    starts = [1, *(group[0].batch_size for group in groups[1:])]
    ends = [*(start - 1 for start in starts[1:]), choices[-1].batch_size]
    return [
        Stretch(first=first, last=last, choices=group)
        for first, last, group in zip(starts, ends, groups, strict=True)
    ]


def schedule_table(basis: Basis, choices: Sequence[Choice]) -> Table:
    """One row a stretch: what to run, what it gains at both ends, and whether that is decided."""
    table = Table(
        title=title_of(basis),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        min_width=60,
    )
    for name in ("B", "gamma", "speedup at first B", "at last B"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(f"{source(basis.labels)} at B")
    table.add_column("decided")
    if any(choice.rivals for choice in choices):
        table.add_column("rivals")
    for stretch in stretches(choices):
        table.add_row(*map(Text, _cells(basis, stretch)[: len(table.columns)]))
    return table


def title_of(basis: Basis) -> Text:
    text = Text("\n".join(line for line in basis.title if line), style="not italic")
    for name in basis.labels:
        text.append(f"\n*** {name} ***", style="bold red")
    return text


def cautions(basis: Basis) -> list[str]:
    return [
        *(f"{name}: {MEANINGS[name]}." for name in basis.labels if name in MEANINGS),
        *basis.notes,
    ]


def meaning(basis: Basis, rule: Rule) -> str:
    """Where the numbers come from and what decided means."""
    kind = source(basis.labels)
    if basis.model is None:
        origin = f"{len(basis.points)} {kind} points, at {kind} batch sizes only"
    elif basis.points:
        origin = f"{len(basis.points)} {kind} points joined by a model of step times fitted to them"
    else:
        origin = "a model of step times alone"
    return (
        f"Speedups with 95 % intervals: {origin}. Decided: no other gamma is better by more than "
        f"{100 * rule.tolerance:g} %, with {100 * rule.confidence:g} % confidence; among gammas closer "
        "to each other the smallest is taken."
    )


def limit_sentences(basis: Basis, choices: Sequence[Choice]) -> list[str]:
    """At every batch size that was measured, here or behind the fit."""
    found = []
    for choice in choices:
        if choice.batch_size in basis.reference_sizes:
            gamma = choice.gamma or _best_drafted(basis, choice.batch_size)
            if limits := basis.limits(choice.batch_size, gamma):
                found.append(f"{'SD off; ' if not choice.gamma else ''}{sentence(limits)}")
    return found


def static_sentence(static: StaticChoice, sizes: Sequence[int], by_batch: float) -> str:
    """What one gamma for all gives, beside the schedule's geometric mean."""
    known = "" if static.decided else f", undecided against {_listed(static.rivals)}"
    spread = f"[{static.low:.2f}, {static.high:.2f}]"
    return (
        f"One gamma for all: {static.gamma}{known}; geometric mean {static.speedup:.2f} {spread} over "
        f"B={', '.join(map(str, sizes))}, least {static.worst_speedup:.2f} at B={static.worst_batch_size}; "
        f"by batch size it would be {by_batch:.2f}."
    )


def _cells(basis: Basis, stretch: Stretch) -> list[str]:
    first, last = stretch.choices[0], stretch.choices[-1]
    inside = [c.batch_size for c in stretch.choices if c.batch_size in basis.reference_sizes]
    rival = stretch.open
    verdict = "yes"
    if rival is not None and rival.measure_next:
        size, gamma = rival.measure_next
        verdict = f"undecided: measure (B={size}, gamma={gamma}) next"
    return [
        f"{stretch.first}..{stretch.last}" if stretch.last > stretch.first else str(stretch.first),
        str(stretch.gamma) if stretch.gamma else "0 (off)",
        _speedup(first),
        _speedup(last) if last is not first else "",
        _listed(inside) or "none",
        verdict,
        " ".join(str(rival) if rival else "off" for rival in first.rivals),
    ]


def _speedup(choice: Choice) -> str:
    return f"{choice.speedup:.2f} [{choice.low:.2f}, {choice.high:.2f}]"


def _best_drafted(basis: Basis, batch_size: int) -> int:
    logs = basis.estimate.log_speedup[basis.estimate.batch_sizes.index(batch_size)]
    drafted = [math.nan if gamma == 0 else log for gamma, log in zip(basis.estimate.gammas, logs, strict=True)]  # fmt: skip
    return basis.estimate.gammas[int(np.nanargmax(drafted))]


def _listed(values: Sequence[int]) -> str:
    return " ".join(map(str, values))
