"""Where the forecast of a sweep is made once, written down, and found again by a later run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from moesd_dist.records import Measurement, SweepPoint
from moesd_dist.records.calibration import Calibration
from moesd_dist.records.forecast import Forecast, PointForecast
from moesd_dist.records.serial import to_plain
from moesd_dist.sweep.validation import keeping

Predictor = Callable[
    [Sequence[Measurement], Calibration, Sequence[SweepPoint]], tuple[PointForecast, ...]
]
"""From single-rank measurements with their expert loads to what they say of points over several."""


class FileDesk:
    """Keeps `<sweep id>.forecast.json` and its calibration in a folder that outlives a run.

    `whole` gives measurements by their ids as the journal has them, with expert loads; `calibrate`
    measures the cluster or reads what was measured; `publish` is told every file.
    """

    def __init__(
        self,
        folder: Path,
        sweep_id: str,
        *,
        predictor: Predictor,
        whole: Callable[[Sequence[str]], Mapping[str, Measurement]],
        calibrate: Callable[[], Calibration],
        publish: Callable[[Path], None],
        terms: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`terms` are written down with the forecast: what it will be judged by, and who made it."""
        self.forecast_path = folder / f"{sweep_id}.forecast.json"
        self.calibration_path = folder / f"{sweep_id}.calibration.json"
        self._predictor, self._whole = predictor, whole
        self._calibrate, self._publish, self._terms = calibrate, publish, terms
        self._calibration: Calibration | None = None

    def stored(self) -> Forecast | None:
        found = keeping.read_forecast(self.forecast_path)
        if found is not None:
            self._publish(self.forecast_path)
        return found

    def prepare(self) -> str:
        """The calibration of an earlier run that made no forecast yet is as good as a new one."""
        return self._known_calibration().measured

    def _known_calibration(self) -> Calibration:
        if self._calibration is None:
            self._calibration = keeping.read_calibration(self.calibration_path)
        if self._calibration is None:
            self._calibration = self._calibrate()
            self._publish(keeping.write(self._calibration, self.calibration_path))
        return self._calibration

    def forecast(
        self, single: Sequence[Measurement], points: Sequence[SweepPoint], *, after_the_fact: bool
    ) -> Forecast:
        known, calibration = self._with_loads(single), self._known_calibration()
        forecast = Forecast(
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            digest=digest(known, calibration),
            after_the_fact=after_the_fact,
            points=self._predictor(known, calibration, points),
            about={
                "calibration": calibration.measured,
                "single_rank_points": str(len(known)),
                "hosts": ", ".join(dict.fromkeys(m.host for m in known)),
                **self._terms,
            },
        )
        self._publish(keeping.write(forecast, self.forecast_path))
        return forecast

    def _with_loads(self, single: Sequence[Measurement]) -> list[Measurement]:
        whole = self._whole([m.point.point_id for m in single])
        return [whole.get(m.point.point_id, m) for m in single]


def digest(single: Sequence[Measurement], calibration: Calibration) -> str:
    """16 hex digits over everything that a forecast is made from, in any order."""
    parts = sorted(json.dumps(to_plain(_timeless(m)), sort_keys=True) for m in single)
    text = "\n".join([json.dumps(to_plain(calibration), sort_keys=True), *parts])
    return sha256(text.encode()).hexdigest()[:16]


def _timeless(measurement: Measurement) -> Measurement:
    """Without what a store may phrase another way; every count and second stays."""
    return replace(measurement, versions={}, machine={})
