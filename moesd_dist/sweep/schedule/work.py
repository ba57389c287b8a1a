"""What waits to be measured, what is loaded, and what can be done next."""

from __future__ import annotations

from dataclasses import dataclass

from moesd_dist.sweep.grouping import EngineKey, Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A group that waits for an engine of its key; `seconds` is what it is expected to take."""

    group: Group
    key: EngineKey
    seconds: float
    avoid: frozenset[str] = frozenset()  # nodes on which it failed before: others first


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An engine on its nodes, one entry a bundle; `free_in_s` is 0 for an idle one."""

    engine_id: int
    key: EngineKey
    nodes: tuple[str, ...]
    busy: bool = False
    free_in_s: float = 0.0  # expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Give the work to the engine, which is loaded and idle."""

    engine_id: int
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Load another engine on these nodes, one entry a bundle; the work is its first."""

    key: EngineKey
    nodes: tuple[str, ...]
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Close an idle engine, so that its room is free."""

    engine_id: int


Action = Submit | Start | Stop
