"""What the tests of the engine over several ranks run on every rank."""

from __future__ import annotations

import time
from dataclasses import replace

from moesd_dist.engines.transformers.engine import TransformersEngine
from moesd_dist.records import Device, ModelSpec, RankPlace, Repeat, SweepPoint

TIMEOUTS = (60.0, 5.0)


def engine(place: RankPlace, point: SweepPoint, draft: ModelSpec | None) -> TransformersEngine:
    return TransformersEngine(
        target=point.target,
        draft=draft,
        device=Device.cpu,
        threads=1,
        layout=point.layout,
        place=place,
        timeouts=TIMEOUTS,
    )


def measure(place: RankPlace, points: list[SweepPoint]) -> list[Repeat]:
    """One repeat of each, in turn."""
    made = engine(place, points[0], points[-1].sd.draft)
    for point in points:
        made.warm_up(point)
    found = [made.measure(point, 0) for point in points]
    made.close()
    return found


def disagree(place: RankPlace, point: SweepPoint) -> str:
    """Every rank asks for another gamma."""
    made = engine(place, point, point.sd.draft)
    try:
        made.measure(replace(point, gamma=1 + place.rank), 0)
    except ValueError as error:
        return str(error)
    return "measured"


def lose_a_rank(place: RankPlace, point: SweepPoint) -> tuple[str, float]:
    """The last rank dies in the middle; what the others see, and after how many seconds."""
    made = engine(place, point, None)
    made.warm_up(point)
    if place.rank == place.size - 1:
        return "gone", 0.0
    began = time.monotonic()
    try:
        made.measure(point, 0)
    except RuntimeError as error:
        return str(error), time.monotonic() - began
    return "measured", time.monotonic() - began


def stall_a_rank(place: RankPlace, point: SweepPoint) -> tuple[str, float]:
    """The last rank lives and says nothing."""
    made = engine(place, point, None)
    made.warm_up(point)
    if place.rank == place.size - 1:
        time.sleep(TIMEOUTS[1] + 3.0)
        return "late", 0.0
    began = time.monotonic()
    try:
        made.measure(point, 0)
    except RuntimeError as error:
        return str(error), time.monotonic() - began
    return "measured", time.monotonic() - began
