"""What a group and an engine's start are expected to take: for order, deadlines and plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from moesd_dist.sweep.pairing import EngineKey, Group


class Costs(Protocol):
    """Expected seconds; `known` says whether they rest on anything but a guess."""

    def group_s(self, group: Group) -> float:
        """Wall seconds of the whole group: warm-up, baseline and points, all repeats."""
        ...

    def start_s(self, key: EngineKey) -> float: ...

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

    @property
    def source(self) -> str:
        return ""
