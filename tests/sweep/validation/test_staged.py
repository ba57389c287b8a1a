"""One rank first, then the forecast, then the others; and what a later run makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from moesd_dist.records import Failed, LayoutSpec, Measurement, SweepPoint
from moesd_dist.records.forecast import Forecast
from moesd_dist.sweep.validation.shares import is_shared, share_of, with_single_ranks
from moesd_dist.sweep.validation.staged import StagedPlan
from tests.sweep.validation.known_cluster import over, point

SHARED = [point(batch_size=b, gamma=g, layout=over(2)) for b in (4, 16) for g in (1, 3)]
POINTS = with_single_ranks([q for p in SHARED for q in (p.baseline, p)])


def measured(of: SweepPoint) -> Measurement:
    return Measurement(point=of, repeats=(), baseline=())


class Desk:
    """Remembers what it was asked, and foretells whatever it was told to."""

    def __init__(self, stored: Forecast | None = None, error: str = "") -> None:
        self._stored, self._error = stored, error
        self.asked: list[str] = []
        self.single: list[Measurement] = []

    def stored(self) -> Forecast | None:
        self.asked.append("stored")
        return self._stored

    def prepare(self) -> str:
        self.asked.append("prepare")
        return "yesterday"

    def forecast(
        self, single: Sequence[Measurement], points: Sequence[SweepPoint], *, after_the_fact: bool
    ) -> Forecast:
        self.asked.append("forecast")
        self.single = list(single)
        if self._error:
            raise ValueError(self._error)
        return Forecast(made="now", digest="abc", after_the_fact=after_the_fact, points=())


def test_every_shared_point_brings_one_rank_with_the_batch_and_with_a_share_of_it():
    single = [(p.batch_size, p.gamma) for p in POINTS if not is_shared(p)]
    assert sorted(single) == [(b, g) for b in (2, 4, 8, 16) for g in (0, 1, 3)]
    assert [p for p in POINTS if is_shared(p)] == list(
        dict.fromkeys(q for p in SHARED for q in (p.baseline, p))
    )


@pytest.mark.parametrize(
    ("batch_size", "ranks", "share"),
    [
        pytest.param(16, 4, 4, id="even"),
        pytest.param(5, 2, 3, id="the first rank takes the odd one"),
        pytest.param(1, 4, 1, id="some ranks have none"),
    ],
)
def test_a_share_is_that_of_the_fullest_rank(batch_size, ranks, share):
    assert share_of(point(batch_size=batch_size, layout=over(ranks))) == share


def test_single_ranks_have_no_exchange_and_no_placement():
    layout = LayoutSpec(dp_size=2, ep_size=2, nodes=2, expert_placement="round_robin")
    found = with_single_ranks([point(batch_size=4, layout=layout)])
    assert {p.layout for p in found if not is_shared(p)} == {LayoutSpec()}


def test_the_forecast_comes_after_one_rank_and_before_the_others():
    desk = Desk()
    plan = StagedPlan(POINTS, desk)
    first = plan.next_round([])
    assert not any(map(is_shared, first.points))
    assert "calibration of yesterday" in first.why
    assert desk.asked == ["stored", "prepare"]
    second = plan.next_round([measured(p) for p in first.points])
    assert desk.asked == ["stored", "prepare", "forecast"]
    assert all(map(is_shared, second.points))
    assert {*first.points, *second.points} == set(POINTS)
    assert "before any was measured" in second.why
    assert plan.next_round([measured(p) for p in POINTS]).points == ()


def test_a_stored_forecast_is_never_made_again():
    stored = Forecast(made="before", digest="abc", after_the_fact=False, points=())
    desk = Desk(stored)
    plan = StagedPlan(POINTS, desk)
    plan.next_round([measured(p) for p in POINTS])
    plan.next_round([measured(p) for p in POINTS])
    assert plan.forecast is stored
    assert desk.asked == ["stored"]


def test_a_forecast_made_when_some_points_are_known_says_so_and_does_not_see_them():
    desk = Desk()
    plan = StagedPlan(POINTS, desk)
    known = [measured(p) for p in POINTS if not is_shared(p)] + [measured(SHARED[0])]
    plan.next_round(known)
    assert "after some were known" in plan.next_round(known).why
    assert plan.forecast is not None
    assert plan.forecast.after_the_fact
    assert not any(is_shared(m.point) for m in desk.single)


def test_failed_points_of_one_rank_are_not_what_a_forecast_is_made_from():
    desk = Desk()
    plan = StagedPlan(POINTS, desk)
    single = [p for p in POINTS if not is_shared(p)]
    plan.next_round([])
    plan.next_round([*map(measured, single[1:]), Failed(point=single[0], reason="broke")])
    assert [m.point for m in desk.single] == single[1:]


def test_without_a_forecast_the_points_are_measured_all_the_same():
    plan = StagedPlan(POINTS, Desk(error="too few points"))
    plan.next_round([])
    assert plan.next_round([]).points
    assert plan.forecast is None
    assert plan.trouble == "too few points"
    assert "nothing was foretold: too few points" in plan.next_round([]).why


def test_a_validation_needs_several_ranks():
    with pytest.raises(ValueError, match=r"sweep.ranks=\[1,2\]"):
        StagedPlan([point()])
