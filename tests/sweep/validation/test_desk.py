"""A forecast on the disk: written once, found again, and named for what it was made from."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from moesd_dist.records import Measurement
from moesd_dist.records.forecast import Estimate, Forecast, PointForecast
from moesd_dist.sweep.validation.desk import FileDesk, digest
from moesd_dist.sweep.validation.keeping import read_forecast, write
from tests.sweep.validation.known_cluster import KnownEngine, calibration, over, point

POINT = point(batch_size=4, gamma=1, layout=over(2))
SAID = PointForecast(
    point_id=POINT.point_id,
    ranks=2,
    nodes=1,
    batch_size=4,
    gamma=1,
    estimates=(Estimate(name="speedup", value=1.5, low=1.25, high=1.75),),
)


def single() -> list[Measurement]:
    engine, found = KnownEngine(), []
    for of in (point(batch_size=4, gamma=1), point(batch_size=4, gamma=0)):
        repeat = engine.measure(of, 0)
        found.append(Measurement(point=of, repeats=(repeat,), baseline=(repeat,)))
    return found


@pytest.fixture
def desk(tmp_path):
    """`seen` is what the predictor was given, `told` the names of published files."""

    def make(whole=None, calibrate=calibration):
        def predictor(known, about, points):
            made.seen = (known, about, tuple(points))
            return (SAID,)

        made = FileDesk(
            tmp_path / "journal",
            "0123",
            predictor=predictor,
            whole=lambda _: whole or {},
            calibrate=calibrate,
            publish=lambda path: made.told.append(path.name),
        )
        made.told = []
        return made

    return make


def test_a_forecast_is_found_again_as_it_was_written(desk):
    first = desk()
    made = first.forecast(single(), [POINT], after_the_fact=False)
    assert first.forecast_path.exists()
    assert desk().stored() == made
    assert made.of(POINT).estimate("speedup").high == 1.75
    assert first.told == ["0123.calibration.json", "0123.forecast.json"]
    assert datetime.now(UTC) - datetime.fromisoformat(made.made) < timedelta(minutes=1)


def test_a_found_forecast_is_published_with_the_run_that_found_it(desk):
    desk().forecast(single(), [POINT], after_the_fact=False)
    later = desk()
    later.stored()
    assert later.told == ["0123.forecast.json"]


def test_a_calibration_is_measured_once_and_outlives_the_run(desk):
    def refuse():
        raise AssertionError("measured again")

    assert desk().prepare() == calibration().measured
    later = desk(calibrate=refuse)
    assert later.prepare() == calibration().measured
    later.forecast(single(), [POINT], after_the_fact=False)
    assert later.seen[1] == calibration()


def test_expert_loads_come_from_the_journal(desk):
    whole = single()
    slim = [replace(m, repeats=(), baseline=()) for m in whole]
    made = desk(whole={m.point.point_id: m for m in whole})
    made.forecast(slim, [POINT], after_the_fact=False)
    assert made.seen[0] == whole


def test_the_digest_is_of_everything_that_was_measured_and_of_no_order():
    known, about = single(), calibration()
    assert digest(known, about) == digest(known[::-1], about)
    slower = replace(known[0].repeats[0], target_s=known[0].repeats[0].target_s * 1.001)
    assert digest([replace(known[0], repeats=(slower,)), known[1]], about) != digest(known, about)
    assert digest(known, calibration((2,))) != digest(known, about)


def test_nothing_else_is_taken_for_a_forecast(tmp_path):
    path = tmp_path / "x.forecast.json"
    assert read_forecast(path) is None
    path.write_text(json.dumps({"made": 1}))
    with pytest.raises(ValueError, match="move it away to make another"):
        read_forecast(path)


def test_a_folder_that_takes_nothing_is_told_before_anything_is_measured(tmp_path):
    (tmp_path / "file").write_text("")
    forecast = Forecast(made="now", digest="", after_the_fact=False, points=())
    with pytest.raises(ValueError, match="written before what it foretells is measured"):
        write(forecast, tmp_path / "file" / "x.json")
