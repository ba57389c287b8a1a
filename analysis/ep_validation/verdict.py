"""What the comparison says of each quantity: it held, it did not, or the noise is too large to tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from analysis.ep_validation.comparison import NAMES, Comparison
from moesd_dist.records import Measurement
from moesd_dist.records.forecast import Forecast, PointForecast

AFTER = "PREDICTED AFTER THE FACT: some of the points were measured before the forecast was made"


class Result(StrEnum):
    HOLDS = "PASS"  # every error is within the tolerance
    CONTRADICTED = "FAIL"  # some error is beyond it, wherever in its interval the truth lies
    OPEN = "OPEN"  # beyond it, but the measured interval reaches back: noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Of one quantity over all of its points; errors are relative."""

    name: str
    result: Result
    points: int
    within: int
    worst: Comparison
    median_error: float  # of the absolute ones
    tolerance: float
    noise: float | None  # median half-width of the measured intervals
    noisy: int  # points whose measured interval is wider than the tolerance
    covered: int  # points measured inside the foretold interval


def verdicts(comparisons: Sequence[Comparison]) -> list[Verdict]:
    """One a quantity, in the order in which they were compared."""
    found: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        found.setdefault(comparison.name, []).append(comparison)
    return [_verdict(name, members) for name, members in found.items()]


def sentences(forecast: Forecast | None, found: Sequence[Verdict], trouble: str = "") -> list[str]:
    """The whole verdict, cautions first."""
    if forecast is None:
        return [f"Nothing was foretold, so there is no verdict: {trouble}."]
    said = [f"{AFTER}."] if forecast.after_the_fact else []
    said.append(
        f"Foretold {forecast.made} from {forecast.about.get('single_rank_points', 'the')} points on "
        f"one rank and the calibration of {forecast.about.get('calibration', 'an unknown day')} "
        f"(digest {forecast.digest})."
    )
    return said + [_sentence(v) for v in found]


def unjudged(forecast: Forecast, measured: Sequence[Measurement]) -> list[str]:
    """What the verdict leaves out: foretold points without a measurement, and the reverse."""
    known = {m.point.point_id for m in measured}
    foretold = {p.point_id for p in forecast.points}
    several = {m.point.point_id for m in measured if m.point.layout.ep_size > 1}
    said = []
    if missing := foretold - known:
        said.append(f"{len(missing)} of {len(foretold)} foretold points were not measured.")
    if more := several - foretold:
        said.append(f"{len(more)} points over several ranks were measured without a forecast.")
    return said


def place_of(place: PointForecast) -> str:
    """Such as `EP 2, B=16, gamma=3`."""
    nodes = f" on {place.nodes} nodes" if place.nodes > 1 else ""
    return f"EP {place.ranks}{nodes}, B={place.batch_size}, gamma={place.gamma}"


def _verdict(name: str, members: Sequence[Comparison]) -> Verdict:
    known = [c.noise for c in members if c.noise is not None]
    tolerance = members[0].tolerance
    return Verdict(
        name=name,
        result=_result(members),
        points=len(members),
        within=sum(c.within for c in members),
        worst=max(members, key=lambda c: abs(c.error)),
        median_error=median(abs(c.error) for c in members),
        tolerance=tolerance,
        noise=median(known) if known else None,
        noisy=sum(noise > tolerance for noise in known),
        covered=sum(c.is_covered for c in members),
    )


def _result(members: Sequence[Comparison]) -> Result:
    if all(c.within for c in members):
        return Result.HOLDS
    beyond = any(c.least_error > c.tolerance for c in members)
    return Result.CONTRADICTED if beyond else Result.OPEN


def _sentence(v: Verdict) -> str:
    text = f"{v.result.value} {NAMES[v.name]}: {v.within} of {v.points} points within {v.tolerance:.0%}"
    text += f", worst {v.worst.error:+.1%} at {place_of(v.worst.place)}"
    if v.noisy:
        text += f"; at {v.noisy} the measured interval is wider than the tolerance"
    return f"{text}."
