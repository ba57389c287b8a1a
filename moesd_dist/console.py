"""What a person sees: progress while it runs, and one line when something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from moesd_dist.records import Infeasible, Measurement, Outcome, Role, SweepPoint
from moesd_dist.sweep.driver import Round
from moesd_dist.sweep.statistics import speedup, target_efficiency

USAGE_ERROR = 2
POINTS_FAILED = 3
NOT_TRACKED = 4  # measured and in the journal, not yet in the tracker
INTERRUPTED = 130


class ConsoleProgress:
    """A live bar on a terminal, one plain line a point in a log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._done = self._total = 0
        self._seen: set[tuple[int, str]] = set()

    def begin(self, total: int, done: int) -> None:
        self._done, self._total = done, total
        if done:
            self._console.print(f"{done} of {total} points were finished by an earlier run")
        self._bar.start()
        self._task = self._bar.add_task("measuring", total=total, completed=done)

    def begin_round(self, planned: Round) -> None:
        if planned.why:
            names = ", ".join(name(p) for p in planned.points if p.role is not Role.baseline)
            self._bar.console.print(f"{planned.why}: {names}", markup=False, highlight=False, soft_wrap=True)  # fmt: skip

    def advance(self, outcome: Outcome) -> None:
        self._done += 1
        self._bar.update(self._task, completed=self._done)
        text = f"[{self._done}/{self._total}] {one_line(outcome)}{self._which(outcome.point)}"
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _which(self, point: SweepPoint) -> str:
        """What a sweep over models, methods or layouts needs to tell its points apart."""
        own = (point.target.name, point.sd.method.value if point.gamma else "", point.hardware, _how(point))  # fmt: skip
        self._seen |= {(place, name) for place, name in enumerate(own) if name}
        told = [
            n for i, n in enumerate(own) if n and sum(i == place for place, _ in self._seen) > 1
        ]
        return f" [{', '.join(told)}]" if told else ""

    def note(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def end(self) -> None:
        self._bar.stop()


def name(point: SweepPoint) -> str:
    """A point by its axes."""
    text = f"B={point.batch_size} gamma={point.gamma}"
    if point.role is Role.control:
        text += " control"
    if point.top_k is not None:
        text += f" top_k={point.top_k}"
    if point.layout.ep_size > 1:
        text += f" ep={point.layout.ep_size}"
    return text + (f" temperature={point.temperature:g}" if point.temperature else "")


def _how(point: SweepPoint) -> str:
    """The experts are shared: over how many nodes, where they lie, what carries their tokens."""
    layout = point.layout
    if layout.ep_size == 1:
        return ""
    nodes = "1 node" if layout.nodes == 1 else f"{layout.nodes} nodes"
    return " ".join(filter(None, (nodes, layout.expert_placement, layout.all2all_backend)))


def one_line(outcome: Outcome) -> str:
    """A point and how it went."""
    point = outcome.point
    if not isinstance(outcome, Measurement):
        kind = "infeasible" if isinstance(outcome, Infeasible) else "failed"
        return f"{name(point)} {kind}: {outcome.reason}"
    if not outcome.timed:
        return _untimed_line(outcome)
    tokens_per_s = sum(r.tokens for r in outcome.repeats) / sum(r.seconds for r in outcome.repeats)
    text = f"{name(point)} {'simulated ' if point.simulated else ''}{tokens_per_s:.1f} tokens/s"
    if point.gamma:
        text += (
            f", speedup {speedup(outcome):.2f}, target efficiency {target_efficiency(outcome):.2f}"
        )
        text += f", acceptance length {outcome.acceptance_length:.2f}"
    return text + (f" ({', '.join(outcome.flags)})" if outcome.flags else "")


def _untimed_line(measured: Measurement) -> str:
    """Counts alone."""
    text = f"{name(measured.point)} untimed"
    if measured.point.gamma:
        text += f", acceptance length {measured.acceptance_length:.2f}"
    flags = [flag for flag in measured.flags if flag != "untimed"]
    return text + (f" ({', '.join(flags)})" if flags else "")


@contextmanager
def errors_as_one_line() -> Iterator[None]:
    """Everything a user can get wrong becomes one line and exit code 2."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        fail(explain(error))
    except KeyboardInterrupt:
        fail("interrupted; the same command continues where it stopped", INTERRUPTED)


def explain(error: Exception) -> str:
    """An error of Hydra or OmegaConf with its cause, without their search paths and key dumps."""
    text = str(error).split("Config search path")[0]
    if error.__cause__ is not None and type(error).__module__.startswith("hydra"):
        text += f": {str(error.__cause__).splitlines()[0]}"
    lines = [line for line in text.splitlines() if not line.strip().startswith("object_type=")]
    return " ".join(" ".join(lines).split())


def fail(message: object, code: int = USAGE_ERROR) -> NoReturn:
    """One line on standard error, then a non-zero exit."""
    line = " ".join(str(message).split())
    print(f"moesd-dist: {line}", file=sys.stderr)
    raise SystemExit(code)
