"""A sweep that measures one rank, says what several will do, and only then measures them."""

# The order is the point of it: once a forecast is written, later measurements cannot change it. A
# sweep that was killed reads it back; where none is stored although some of its points are known,
# a new one says that it was made after the fact.

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from moesd_dist.records import Measurement, Outcome, SweepPoint
from moesd_dist.records.forecast import Forecast
from moesd_dist.sweep.driver import Round
from moesd_dist.sweep.validation.shares import is_shared


class Desk(Protocol):
    """Where a forecast is made and kept."""

    def stored(self) -> Forecast | None:
        """What an earlier run of the same sweep has said."""
        ...

    def prepare(self) -> str:
        """Measures what comes before any point, the cluster itself, and says of what day it is."""
        ...

    def forecast(
        self, single: Sequence[Measurement], points: Sequence[SweepPoint], *, after_the_fact: bool
    ) -> Forecast:
        """Makes one and writes it where it stays; ValueError if it cannot be made."""
        ...


class StagedPlan:
    """Two rounds: points on a single rank, then all others; in between the forecast of these.

    ValueError if there is no point over several ranks, since nothing would be foretold.
    """

    def __init__(self, points: Sequence[SweepPoint], desk: Desk | None = None) -> None:
        self._single = tuple(p for p in points if not is_shared(p))
        self._shared = tuple(p for p in points if is_shared(p))
        if not self._shared:
            raise ValueError(
                "a validation needs points over several ranks, got none; give sweep.ranks=[1,2], "
                "or leave validation away"
            )
        self._desk, self._stage = desk, 0
        self.forecast: Forecast | None = None
        self.trouble = "the points on one rank were not all measured"  # why there is no forecast

    def next_round(self, outcomes: Sequence[Outcome]) -> Round:
        self._stage += 1
        match self._stage:
            case 1:
                return self._first(outcomes)
            case 2:
                self._foretell(outcomes)
                return Round(points=self._shared, why=f"2 of 2, several ranks: {self.said}")
            case _:
                return Round(points=(), why=self.said)

    @property
    def said(self) -> str:
        """When the forecast was made, in a line for a person."""
        if self.forecast is None:
            return f"nothing was foretold: {self.trouble}"
        when = (
            "after some were known" if self.forecast.after_the_fact else "before any was measured"
        )
        count = len(self.forecast.points)
        return f"{count} points foretold {when}, {self.forecast.made}, from {self.forecast.digest}"

    def _first(self, outcomes: Sequence[Outcome]) -> Round:
        why = "1 of 2, one rank, which the forecast is made from"
        if self._desk is not None:
            self.forecast = self._desk.stored()
            if self.forecast is None:
                why += f" with the calibration of {self._desk.prepare()}"
        return Round(points=self._single, why=why)

    def _foretell(self, outcomes: Sequence[Outcome]) -> None:
        if self.forecast is not None or self._desk is None:
            return
        known = [o for o in outcomes if isinstance(o, Measurement)]
        try:
            self.forecast = self._desk.forecast(
                [m for m in known if not is_shared(m.point)],
                self._shared,
                after_the_fact=any(is_shared(m.point) for m in known),
            )
        except (
            ValueError
        ) as error:  # too few points, say: what was asked for is measured all the same
            self.trouble = str(error)
