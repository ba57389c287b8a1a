"""How short any schedule of a sweep could be at best: what a makespan is compared with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from moesd_dist.sweep.grouping import EngineKey
from moesd_dist.sweep.schedule.horizon import Load, crowding
from moesd_dist.sweep.schedule.needs import Needs, Room
from moesd_dist.sweep.schedule.nodes import Kind, Nodes
from moesd_dist.sweep.schedule.work import Work

_PRECISION = 1e-4


def lower_bound_s(
    works: Sequence[Work],
    rooms: Sequence[Room],
    needs: Callable[[EngineKey], Needs],
    start_s: Callable[[EngineKey], float],
) -> float:
    """No schedule is shorter, not even with perfect knowledge: the largest of three bounds.

    The longest group after its start. Of each kind of engine, two or more of its longest groups
    that have to share a place. And all that the engines occupy, with as many starts as it takes to
    end in that time.
    """
    nodes = Nodes(rooms, needs)
    by_key: dict[EngineKey, list[float]] = {}
    for work in works:
        by_key.setdefault(work.key, []).append(work.seconds)
    loads = [_load(nodes.known(key).kind, start_s(key), own) for key, own in by_key.items()]
    least = max((load.start_s + load.longest_s for load in loads), default=0.0)
    least = max([least, *_shared_places(works, nodes, start_s)])
    low, high = least, least + sum(load.start_s + load.seconds for load in loads)
    if not loads or _occupied_s(loads, low) <= low:
        return low
    while high - low > _PRECISION * low:
        middle = (low + high) / 2
        low, high = (low, middle) if _occupied_s(loads, middle) <= middle else (middle, high)
    return low


def _load(kind: Kind, start_s: float, seconds: Sequence[float]) -> Load:
    return Load(
        kind=kind,
        start_s=start_s,
        seconds=sum(seconds),
        longest_s=max(seconds),
        count=len(seconds),
    )


def _occupied_s(loads: Sequence[Load], end_s: float) -> float:
    """How long the nodes are occupied if all is to end by then: one engine can only do so much."""
    seconds: dict[Kind, float] = {}
    for load in loads:
        usable_s = end_s - load.start_s
        starts = max(1, math.ceil(load.seconds / usable_s - 1e-9)) if usable_s > 0 else load.count
        taken = load.seconds + min(starts, load.count) * load.start_s
        seconds[load.kind] = seconds.get(load.kind, 0.0) + taken
    return max(crowding(seconds), default=0.0)


def _shared_places(
    works: Sequence[Work], nodes: Nodes, start_s: Callable[[EngineKey], float]
) -> Iterator[float]:
    """Where k places take k + 1 groups, two of them follow one another; with 2k + 1, three; and so on."""
    kinds = [nodes.known(work.key).kind for work in works]
    for small in dict.fromkeys(kinds):
        larger = [w for w, kind in zip(works, kinds, strict=True) if kind.takes(small)]
        equal = [w for w, kind in zip(works, kinds, strict=True) if kind is small]
        yield from _stacked(larger, small.slots, start_s)
        yield from _stacked(equal, small.engines, start_s)


def _stacked(
    works: Sequence[Work], places: int, start_s: Callable[[EngineKey], float]
) -> Iterator[float]:
    """The shortest of the longest k x places + 1 works, k + 1 of them, after one start."""
    longest = sorted((work.seconds for work in works), reverse=True)
    first_s = min((start_s(work.key) for work in works), default=0.0)
    for k in range(1, (len(longest) - 1) // places + 1 if places else 1):
        yield first_s + sum(longest[k * places - k : k * places + 1])
