"""What each engine key asks for: how many engines it takes to end in time, and how urgent they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moesd_dist.sweep.schedule.horizon import Load
from moesd_dist.sweep.schedule.nodes import Known
from moesd_dist.sweep.schedule.waiting import Line
from moesd_dist.sweep.schedule.work import Loaded

CRITICAL = 0.5  # of the horizon
"""An engine's start and longest group that take more than this go before wider ones."""

_SLACK = 1e-9


@dataclass(slots=True, kw_only=True, eq=False)
class Ask:
    """A key that something waits for, while a decision is made."""

    known: Known
    line: Line
    load: Load
    engines: Sequence[Loaded]
    short: int  # engines that it lacks to end in time
    spare: int  # engines that it has beyond those
    critical: bool
    started: int = 0

    @property
    def rank(self) -> tuple[bool, int, float]:
        """Urgent ones first, then wide ones, which small ones can be packed around; then long ones."""
        width = self.load.kind.needs.all_gpus
        return self.critical, width, self.load.seconds / (len(self.engines) + 1)

    @property
    def left_s(self) -> float:
        """For each of its engines and one more."""
        busy_s = sum(engine.free_in_s for engine in self.engines)
        return (self.load.seconds + busy_s) / (len(self.engines) + self.started + 1)


def ask_for(
    known: Known, line: Line, load: Load, engines: Sequence[Loaded], horizon_s: float
) -> Ask:
    """Counts in whole groups of the mean length: an engine does so many of them until the horizon."""
    count, each_s = load.count, load.seconds / load.count
    done = [_groups(horizon_s - engine.free_in_s, each_s, count) for engine in engines]
    one = max(1, _groups(horizon_s - load.start_s, each_s, count))
    busy_s = sum(engine.free_in_s for engine in engines)
    paying = (load.seconds + busy_s) / load.start_s if load.start_s > 0 else math.inf
    wanted = min(math.ceil((count - sum(done)) / one), paying - len(engines))
    short = max(int(wanted), int(not engines))
    idle = sum(not engine.busy for engine in engines)
    return Ask(
        known=known,
        line=line,
        load=load,
        engines=engines,
        short=max(0, min(short, count - idle)),
        spare=len(engines) - _enough(done, count),
        critical=load.start_s + load.longest_s >= CRITICAL * horizon_s,
    )


def _groups(seconds: float, each_s: float, count: int) -> int:
    return int(max(0.0, seconds) / each_s + _SLACK) if each_s > 0 else count


def _enough(done: Sequence[int], count: int) -> int:
    """How many of the engines, those that are free first, do it all; one at least."""
    total = 0
    for used, each in enumerate(sorted(done, reverse=True), 1):
        total += each
        if total >= count:
            return used
    return len(done)


def loads_of(lines: Mapping[Known, Line], start_s: Mapping[Known, float]) -> dict[Known, Load]:
    return {
        known: Load(
            kind=known.kind,
            start_s=start_s[known],
            seconds=max(line.seconds, 0.0),
            longest_s=line.entries[-1][0],
            count=len(line.entries),
        )
        for known, line in lines.items()
    }
