"""A foretold quantity beside the measured one, each with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from moesd_dist.config import ValidationConf
from moesd_dist.records import Interval, Measurement
from moesd_dist.records.forecast import Estimate, Forecast, PointForecast
from moesd_dist.sweep.statistics import metrics, paired_interval

NAMES = {  # of metrics, as a reader knows them
    "rank_activated_experts": "activated experts, mean rank",
    "max_rank_activated_experts": "activated experts, busiest rank",
    "load_imbalance": "load imbalance",
    "communication_s": "communication s a forward",
    "target_efficiency": "target efficiency",
    "speedup": "speedup",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One quantity of one point; errors are relative to what was measured."""

    name: str
    place: PointForecast
    predicted: Estimate
    measured: float
    interval: Interval | None  # None for a single repeat
    tolerance: float

    @property
    def error(self) -> float:
        return self.predicted.value / self.measured - 1.0

    @property
    def within(self) -> bool:
        return abs(self.error) <= self.tolerance

    @property
    def noise(self) -> float | None:
        """Half the width of the measured interval, as a factor less 1."""
        return (self.interval.high / self.interval.low) ** 0.5 - 1.0 if self.interval else None

    @property
    def least_error(self) -> float:
        """The smallest that any value in the measured interval would give."""
        low, high = self._ends
        nearest = min(max(self.predicted.value, low), high)
        return abs(self.predicted.value / nearest - 1.0)

    @property
    def is_covered(self) -> bool:
        """Whether the measured value lies in the foretold interval."""
        return self.predicted.low <= self.measured <= self.predicted.high

    @property
    def _ends(self) -> tuple[float, float]:
        return (self.interval.low, self.interval.high) if self.interval else (self.measured,) * 2


def tolerances(conf: ValidationConf) -> dict[str, float]:
    """By metric."""
    return {
        "rank_activated_experts": conf.activated_experts,
        "max_rank_activated_experts": conf.activated_experts,
        "load_imbalance": conf.load_imbalance,
        "communication_s": conf.communication,
        "target_efficiency": conf.target_efficiency,
        "speedup": conf.speedup,
    }


def compare(
    forecast: Forecast, measured: Sequence[Measurement], allowed: Mapping[str, float]
) -> list[Comparison]:
    """Of every foretold point that was measured, in the order of the forecast."""
    found = {m.point.point_id: m for m in measured}
    pairs = ((p, found[p.point_id]) for p in forecast.points if p.point_id in found)
    return [c for place, m in pairs for c in _of_point(place, m, allowed)]


def _of_point(
    place: PointForecast, m: Measurement, allowed: Mapping[str, float]
) -> Iterator[Comparison]:
    values = metrics(m)
    for name, tolerance in allowed.items():
        predicted, value = place.estimate(name), values.get(name)
        if predicted is not None and value:
            interval = paired_interval(_by_repeat(m, name))
            yield Comparison(
                name=name,
                place=place,
                predicted=predicted,
                measured=value,
                interval=interval,
                tolerance=tolerance,
            )


def _by_repeat(m: Measurement, name: str) -> list[float]:
    """The metric as each repeat alone has it, where it has any."""
    pairs = zip(m.repeats, m.baseline, strict=True)
    alone = (metrics(replace(m, repeats=(r,), baseline=(b,))) for r, b in pairs)
    return [values[name] for values in alone if values.get(name)]
