"""What an executor hands to the driver, in the order in which it became known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moesd_dist.records import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Outcomes to keep, and earlier ones that no longer count, by point id with the reason.

    `notes` are for a person: an attempt that failed and is tried again, a lost node, a drift.
    Where a point is withdrawn and arrives again in the same arrival, the new outcome replaces it.
    """

    outcomes: tuple[Outcome, ...] = ()
    withdrawn: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sentinels: Mapping[str, float] = field(default_factory=dict)  # node name to decode seconds
