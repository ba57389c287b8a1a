"""The sentinels of a sweep: which point each engine key has, and how every node stands to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from moesd_dist.records import SweepPoint
from moesd_dist.sweep.grouping import EngineKey, Group
from moesd_dist.sweep.sentinel import Watch, sentinel_of


class Watches:
    """Kept by the driver for the whole sweep; `every` 0 asks for no sentinels at all."""

    def __init__(self, *, every: int, tolerance: float) -> None:
        self._every, self._tolerance = every, tolerance
        self._points: dict[EngineKey, SweepPoint | None] = {}
        self._watches: dict[tuple[EngineKey, str], Watch] = {}
        self._tried: set[str] = set()
        self._told: set[tuple[EngineKey, str]] = set()

    def sentinel(self, key: EngineKey, groups: Sequence[Group]) -> SweepPoint | None:
        """The key's sentinel, chosen from these groups when it is first asked for; None: there is none."""
        if not self._every:
            return None
        if self._points.get(key) is None:
            self._points[key] = sentinel_of(groups)
        return self._points[key]

    def of(self, key: EngineKey, node: str) -> Watch:
        """`node` is its name, of an engine over several all of theirs."""
        if (key, node) not in self._watches:
            self._watches[key, node] = Watch(
                node=node, every=self._every, tolerance=self._tolerance, tried=self._tried
            )
        return self._watches[key, node]

    def uneven(self) -> tuple[str, ...]:
        """A line for each node that runs at another pace than the median node; each is named once."""
        return tuple(line for key in self._points for line in self._uneven(key))

    def _uneven(self, key: EngineKey) -> list[str]:
        seconds = {node: w.seconds for (k, node), w in self._watches.items() if k == key}
        known = {node: own for node, own in seconds.items() if own}
        found = uneven_nodes(known, self._tolerance)
        new = [node for node in found if (key, node) not in self._told]
        self._told |= {(key, node) for node in new}
        return [
            f"{node} takes {found[node]:.2f} times the median node's decode time: speedups compare, "
            "absolute seconds do not"
            for node in new
        ]


def uneven_nodes(seconds: Mapping[str, float], tolerance: float) -> dict[str, float]:
    """Nodes whose sentinel takes longer or shorter than the median node's, beyond the tolerance.

    Their ratios to it, by name. `seconds` are of one sentinel, that is, of one engine key.
    """
    if not seconds:
        return {}
    middle = median(seconds.values())
    found = {node: own / middle for node, own in seconds.items()}
    return {node: r for node, r in found.items() if abs(math.log(r)) > math.log1p(tolerance)}
