"""What is known of a stored sweep before a new one is opened."""

from __future__ import annotations

import shutil
from pathlib import Path
from threading import Barrier, Thread

import pytest

from moesd_dist.tracking.extension import POINTS_FILE, opening
from moesd_dist.tracking.mlflow import MlflowTracker
from moesd_dist.tracking.mlflow_runs import connect, ensure_experiment
from moesd_dist.tracking.provenance import Provenance

from .conftest import MakeMeasurement, MakePoint, OpenTracker

ID = "0123456789abcdef"


def test_points_whose_artifacts_are_gone_are_those_that_were_tried(
    uri: str,
    tmp_path: Path,
    open_tracker: OpenTracker,
    make_point: MakePoint,
    make_measurement: MakeMeasurement,
) -> None:
    tried, planned = make_point(1), make_point(2)
    tracker = open_tracker(tried, planned, sweep_id=ID)
    tracker.record(make_measurement(tried), {})
    tracker.close("incomplete")
    shutil.rmtree(tmp_path / "kept here" / "mlartifacts")
    with pytest.raises(ValueError, match=r"keeps all of its points; 1 of the 1"):
        opening(uri, "moesd", ("another", "another"), [planned], extends=ID)
    open_tracker(tried, planned, sweep_id=ID).close("incomplete")
    found = opening(uri, "moesd", ("another", "another"), [tried, planned], extends=ID)
    assert found.note.endswith("of 2 points with 0 more")


def test_a_list_of_points_that_was_cut_short_is_no_list(
    uri: str, tmp_path: Path, open_tracker: OpenTracker, make_point: MakePoint
) -> None:
    open_tracker(make_point(1), sweep_id=ID)
    (file,) = (tmp_path / "kept here").rglob(POINTS_FILE)
    file.write_text('{"half')
    assert opening(uri, "moesd", ("another", ID), [make_point(1)], extends=ID[:6]).sweep_id == ID


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("don't", id="a quote"),
        pytest.param("""the "don't" sweep""", id="both quotes"),
        pytest.param("50% \\ a_b;", id="wildcards and a backslash"),
    ],
)
def test_a_sweep_is_found_by_its_name_whatever_that_holds(
    uri: str, provenance: Provenance, make_point: MakePoint, name: str
) -> None:
    for sweep_id, called in ((ID, name), ("other", name.replace("a", "x").replace("'", "`"))):
        MlflowTracker(uri, "moesd", provenance, "").open(sweep_id, called, [make_point()])
    assert ID in opening(uri, "moesd", (name, "new"), [make_point()]).note
    assert opening(uri, "moesd", (name + "!", "new"), [make_point()]).note == ""


def test_drivers_that_make_an_experiment_at_once_have_the_same_one(uri: str) -> None:
    together, found = Barrier(4), []

    def make() -> None:
        client = connect(uri)
        together.wait()
        found.append(ensure_experiment(client, "new", None))

    threads = [Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found))) == (4, 1)
