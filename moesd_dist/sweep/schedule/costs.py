"""What a group and an engine's start are expected to take: for order, deadlines and plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from moesd_dist.sweep.grouping import EngineKey, Group, engine_key


class Costs(Protocol):
    """Expected wall seconds."""

    def group_s(self, group: Group) -> float:
        """Wall seconds of the whole group: warm-up, baseline and points, all repeats."""
        ...

    def start_s(self, key: EngineKey) -> float: ...

    def source_of(self, group: Group) -> str:
        """Where the group's figure comes from, for a person; empty where it is a guess."""
        ...

    def observed(self, group: Group, seconds: float) -> None:
        """What a group took, its engine's start not included: later answers go by it."""
        ...

    @property
    def source(self) -> str:
        """Where the figures come from, for a person; empty where they are a guess."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatCosts:
    """The same for every group: order and ratios mean nothing, deadlines fall back on the least one."""

    group: float = 1.0
    start: float = 1.0

    def group_s(self, group: Group) -> float:
        return self.group

    def start_s(self, key: EngineKey) -> float:
        return self.start

    def source_of(self, group: Group) -> str:
        return ""

    def observed(self, group: Group, seconds: float) -> None:
        """Nothing is learnt."""

    @property
    def source(self) -> str:
        return ""


def deadline_s(costs: Costs, group: Group, *, factor: float, least_s: float) -> float:
    """After how many seconds a group counts as hung, from when it was given to an engine.

    The engine's start is in it, since engines load for their first group. Nothing makes it shorter
    than `least_s`, so a guess, however wrong, can only grant a group more time.
    """
    return max(least_s, factor * (costs.group_s(group) + costs.start_s(engine_key(group))))
