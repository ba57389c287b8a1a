"""When all that waits could be done at the earliest, by what it takes and what the nodes have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from moesd_dist.sweep.schedule.nodes import Kind, Known, Nodes
from moesd_dist.sweep.schedule.work import Loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """All that waits for the engines of one key."""

    kind: Kind
    start_s: float
    seconds: float
    longest_s: float
    count: int


def horizon(loads: Mapping[Known, Load], engines: Sequence[Loaded], nodes: Nodes) -> float:
    """Seconds from now, with one start for each key that has no engine; never too long."""
    loaded = {nodes.known(engine.key) for engine in engines}
    seconds: dict[Kind, float] = {}
    longest = max((engine.free_in_s for engine in engines), default=0.0)
    for known, load in loads.items():
        start_s = 0.0 if known in loaded else load.start_s
        seconds[load.kind] = seconds.get(load.kind, 0.0) + load.seconds + start_s
        longest = max(longest, start_s + load.longest_s)
    for engine in engines:
        kind = nodes.known(engine.key).kind
        seconds[kind] = seconds.get(kind, 0.0) + engine.free_in_s
    return max([longest, *crowding(seconds)])


def crowding(seconds: Mapping[Kind, float]) -> Iterator[float]:
    """How long the nodes are occupied at least by these engine-seconds: by each kind alone, by their
    CPUs and GPUs, and by all that takes a place of a kind."""
    for kind, total in seconds.items():
        if not kind.engines:
            continue
        yield total / kind.engines
        inside = [(k, s * k.needs.nodes) for k, s in seconds.items() if k.where <= kind.where]
        for resource, has in enumerate(kind.all):
            yield sum(s * each.share[resource] for each, s in inside) / has if has else 0.0
        yield sum(s * each.times(kind) for each, s in inside) / kind.slots
