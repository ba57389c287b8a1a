"""What is known of a sweep: every outcome is durable here before anything else is done with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moesd_dist.ports import Tracker
from moesd_dist.records import Infeasible, Measurement, Outcome, SweepPoint
from moesd_dist.sweep.statistics import metrics


class Ledger:
    """Writes through to the tracker."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def open(self, sweep_id: str, name: str, points: Sequence[SweepPoint]) -> None:
        self._tracker.open(sweep_id, name, points)

    def finished(self) -> Mapping[str, Measurement | Infeasible]:
        return self._tracker.finished()

    def record(self, outcomes: Sequence[Outcome]) -> None:
        """Durable when it returns."""
        for outcome in outcomes:
            found = metrics(outcome) if isinstance(outcome, Measurement) else {}
            self._tracker.record(outcome, found)

    def withdraw(self, reasons: Mapping[str, str]) -> None:
        """Finished points, by id, that no longer count and will be measured again."""
        for point_id, why in reasons.items():
            self._tracker.withdraw(point_id, why)

    def settle(self) -> None:
        """Waits until the tracker has everything."""

    def close(self, status: str) -> None:
        self._tracker.close(status)
