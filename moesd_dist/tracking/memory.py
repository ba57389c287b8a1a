"""A tracker that forgets everything when the program ends: for tests and dry runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from moesd_dist.records import Failed, Infeasible, Measurement, Outcome, SweepPoint


class MemoryTracker:
    """Keeps sweeps by id, so that the same tracker can be opened again and continued."""

    def __init__(self) -> None:
        self.sweep_id = ""
        self.name = ""
        self.status = ""
        self.points: tuple[SweepPoint, ...] = ()
        self.outcomes: list[Outcome] = []
        self.metrics: dict[str, dict[str, float]] = {}
        self.curves: dict[str, dict[int, float]] = {}
        self.withdrawals: list[tuple[str, str]] = []
        self.files: list[tuple[str, Path]] = []
        self._finished: dict[str, dict[str, Measurement | Infeasible]] = {}
        self._withdrawn: dict[str, set[str]] = {}

    def open(self, sweep_id: str, name: str, points: Sequence[SweepPoint]) -> None:
        self.sweep_id, self.name, self.points = sweep_id, name, tuple(points)
        self.status = "running"
        self._finished.setdefault(sweep_id, {})
        self._withdrawn.setdefault(sweep_id, set())

    def finished(self) -> Mapping[str, Measurement | Infeasible]:
        return dict(self._finished[self.sweep_id])

    def trust(self, finished: Mapping[str, Measurement | Infeasible]) -> None:
        """It knows already."""

    def withdrawn(self) -> frozenset[str]:
        return frozenset(self._withdrawn[self.sweep_id])

    def record(self, outcome: Outcome, metrics: Mapping[str, float]) -> None:
        done = self._finished[self.sweep_id]
        point_id = outcome.point.point_id
        if point_id in done:
            return
        self.outcomes.append(outcome)
        self.metrics[point_id] = dict(metrics)
        if not isinstance(outcome, Failed):
            done[point_id] = outcome
            self._withdrawn[self.sweep_id].discard(point_id)

    def withdraw(self, point_id: str, why: str) -> None:
        if self._finished[self.sweep_id].pop(point_id, None) is not None:
            self._withdrawn[self.sweep_id].add(point_id)
        self.withdrawals.append((point_id, why))

    def log_curves(self, curves: Mapping[str, Mapping[int, float]]) -> None:
        self.curves.update({name: dict(curve) for name, curve in curves.items()})

    def log_file(self, path: Path, folder: str = "") -> None:
        self.files.append((folder, path))

    def close(self, status: str) -> None:
        self.status = status

    @property
    def run_id(self) -> str:
        return f"memory of {self.sweep_id}"

    @property
    def address(self) -> str:
        return "memory: gone when this program ends"
