"""Whether a node is still as fast as it was: one small point, measured again and again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, variance

from scipy import stats

from moesd_dist.records import Interval, Measurement, Outcome, Role, SweepPoint
from moesd_dist.sweep.grouping import Group

# Of a sentinel: more repeats of fewer tokens, since it is repeats that tell how sure one may be.
REPEATS = 5
WINDOW_TOKENS = 64
FIRST = 3  # sentinels that make the level later ones are held against
FLAG = "drift"


def sentinel_of(groups: Iterable[Group]) -> SweepPoint | None:
    """The cheapest baseline of groups that share an engine; None where no clock would tell anything."""
    found = [g.baseline for g in groups if not (g.baseline.simulated or g.baseline.untimed)]
    if not found:
        return None
    point = min(found, key=_cost)
    short = replace(
        point.protocol,
        repeats=REPEATS,
        window_tokens=min(point.protocol.window_tokens, WINDOW_TOKENS),
        end_to_end_repeats=0,
    )
    return replace(point, protocol=short, role=Role.sentinel)


def as_group(sentinel: SweepPoint) -> Group:
    """What an engine is given to measure; its one outcome is judged, never recorded."""
    return Group(baseline=sentinel, points=(), baseline_is_new=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a sentinel says of the points that were measured since the last good one.

    `again` are to be withdrawn and measured once more. `kept` drifted a second time, or lie between
    two sentinels that agree on a new level, and would come out the same: they now carry the flag.
    """

    text: str = ""  # for a person; empty where there is nothing to tell
    ratio: float = 1.0  # its decode seconds over those of the node's level
    interval: Interval | None = None  # of that ratio; None for a node's first sentinel
    drifted: bool = False
    again: tuple[Measurement, ...] = ()
    kept: tuple[Measurement, ...] = ()

    @property
    def withdrawn(self) -> dict[str, str]:
        """Why, by point id: of both, since a flag is added by recording once more."""
        return {m.point.point_id: self.text for m in (*self.again, *self.kept)}


class Watch:
    """One node under one engine key. It lives in the driver and outlives the engines it watches.

    A drift is an interval of the ratio (Welch, over repeats, of logarithms) that lies as a whole
    beyond the tolerance. Points that were measured again already, anywhere, are in `tried`.
    """

    def __init__(self, *, node: str, every: int, tolerance: float, tried: set[str]) -> None:
        self._node, self._every, self._tolerance = node, every, math.log1p(tolerance)
        self._level: list[float] = []  # decode seconds a repeat, of the sentinels that made it
        self._drifted: list[float] = []  # of the last sentinel, if that one drifted
        self._since: dict[str, Measurement] = {}
        self._tried = tried

    @property
    def due(self) -> bool:
        """So many points since the last sentinel; besides, one opens and one closes every engine."""
        return bool(self._every) and len(self._since) >= self._every

    @property
    def unjudged(self) -> int:
        """Points that no sentinel has closed yet."""
        return len(self._since)

    @property
    def seconds(self) -> float:
        """A decoding round at the node's level; 0 before the first sentinel."""
        return math.exp(fmean(map(math.log, self._level))) if self._level else 0.0

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """To be told of everything that was measured on the node with engines of the key."""
        self._since |= {o.point.point_id: o for o in outcomes if isinstance(o, Measurement)}

    def judge(self, sentinel: Measurement) -> Verdict:
        own = [repeat.median_target_s for repeat in sentinel.repeats]
        if not self._level:
            self._level = own
            return Verdict()
        found = change(self._level, own)
        if self._beyond(found):
            return self._drift(own, found)
        if len(self._level) < FIRST * REPEATS:
            self._level = [*self._level, *own]
        self._since, self._drifted = {}, []
        return Verdict(ratio=_centre(found), interval=found)

    def _drift(self, own: list[float], found: Interval) -> Verdict:
        """Two drifted sentinels that agree make the level: a throttled node must not loop for ever."""
        settled = bool(self._drifted) and self._alike(change(self._drifted, own))
        again = {k: m for k, m in self._since.items() if not settled and k not in self._tried}
        kept = [m for k, m in self._since.items() if k not in again]
        self._tried.update(again)  # in place: watches share it
        if settled:
            self._level, self._drifted = [*self._drifted, *own], []
        else:
            self._drifted = own
        self._since = {}
        return Verdict(
            text=self._text(found, settled=settled, again=len(again), kept=len(kept)),
            ratio=_centre(found),
            interval=found,
            drifted=True,
            again=tuple(again.values()),
            kept=tuple(replace(m, flags=(*m.flags, FLAG)) for m in kept),
        )

    def _alike(self, found: Interval) -> bool:
        """By the centre alone: a wide interval agrees with anything."""
        return abs(math.log(_centre(found))) <= self._tolerance

    def _beyond(self, found: Interval) -> bool:
        return math.log(found.low) > self._tolerance or math.log(found.high) < -self._tolerance

    def _text(self, found: Interval, *, settled: bool, again: int, kept: int) -> str:
        what = "has settled at" if settled else "drifted to"
        low, high = found.low, found.high
        parts = [
            f"{self._node} {what} {_centre(found):.2f} [{low:.2f}, {high:.2f}] times its decode time"
        ]
        if again:
            parts.append(f"{again} points since its last good sentinel are measured again")
        if kept:
            parts.append(f"{kept} are kept with the flag {FLAG}")
        return "; ".join(parts)


def change(before: Sequence[float], now: Sequence[float], level: float = 0.95) -> Interval:
    """Welch's interval of the ratio of two means, of logarithms; two values or more on each side."""
    old, new = ([math.log(value) for value in side] for side in (before, now))
    parts = [variance(side) / len(side) for side in (old, new)]
    spread, centre = sum(parts), fmean(new) - fmean(old)
    half = 0.0
    if spread:
        shares = zip(parts, (old, new), strict=True)
        freedom = spread**2 / sum(part**2 / (len(side) - 1) for part, side in shares)
        half = float(stats.t.ppf(0.5 + level / 2, freedom)) * math.sqrt(spread)
    return Interval(low=math.exp(centre - half), high=math.exp(centre + half), level=level)


def _cost(point: SweepPoint) -> tuple[int, int, str]:
    work = point.workload
    return point.batch_size, work.prompt_tokens_max + work.output_tokens, point.point_id


def _centre(interval: Interval) -> float:
    return math.sqrt(interval.low * interval.high)
