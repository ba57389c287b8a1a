"""What was said of expert-parallel points before any of them was measured."""

from __future__ import annotations

from dataclasses import dataclass, field

from moesd_dist.records.point import SweepPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A quantity under the name of the metric it is compared with, and 95 % of one measurement."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PointForecast:
    """Of one point; at gamma 0 there is no speedup to foretell."""

    point_id: str
    ranks: int
    nodes: int
    batch_size: int
    gamma: int
    estimates: tuple[Estimate, ...]

    def estimate(self, name: str) -> Estimate | None:
        return next((e for e in self.estimates if e.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """`digest` names what it was made from: the calibration and the measured EP 1 points.

    `after_the_fact` if one of its points had been measured already when it was made.
    """

    made: str  # ISO date and time, UTC
    digest: str
    after_the_fact: bool
    points: tuple[PointForecast, ...]
    about: dict[str, str] = field(default_factory=dict)  # what a reader should know, as text

    def of(self, point: SweepPoint) -> PointForecast | None:
        return next((p for p in self.points if p.point_id == point.point_id), None)
