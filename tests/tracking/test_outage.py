"""A server that is killed and comes back, and a disk that is full: nothing is lost, nothing doubled."""

from __future__ import annotations

import multiprocessing
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.rest_utils import verify_rest_response
from requests import Response
from requests.exceptions import RequestException

from moesd_dist.ports import TrackerUnavailable
from moesd_dist.records import Infeasible
from moesd_dist.sweep.journal import Journal
from moesd_dist.sweep.ledger import Ledger
from moesd_dist.tracking.mlflow import FINISHED_TAG, MlflowTracker
from moesd_dist.tracking.outage import told
from moesd_dist.tracking.provenance import Provenance

from .conftest import MakeMeasurement, MakePoint, OpenTracker
from .servers import Server


@pytest.fixture
def server(tmp_path: Path, empty_database: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    server = Server(folder)
    server.start()
    yield server
    server.kill()


def finished_runs(uri: str) -> Counter[str]:
    """How many finished runs each point has."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("moesd")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.`{FINISHED_TAG}` = 'true'")
    return Counter(run.data.tags["moesd.point_id"] for run in runs)


def test_a_server_killed_amid_records_and_started_again_has_every_point_once(
    server: Server,
    tmp_path: Path,
    provenance: Provenance,
    make_point: MakePoint,
    make_measurement: MakeMeasurement,
) -> None:
    points = [make_point(batch_size) for batch_size in range(1, 41)]
    tracker = MlflowTracker(server.uri, "moesd", provenance, "")
    ledger = Ledger(tracker, Journal(tmp_path / "journal", tracker.driver), patience_s=120)
    ledger.open("abc", "a sweep", points)
    for place, point in enumerate(points):
        ledger.record([make_measurement(point)])
        time.sleep(0.02)  # some writes are under way when it is killed
        if place == 15:
            server.kill()
        if place == 30:
            server.begin()
    ledger.settle()
    assert ledger.left_behind == ""
    ledger.close("finished")
    assert finished_runs(server.uri) == dict.fromkeys([p.point_id for p in points], 1)


def test_a_server_that_is_gone_is_noticed_in_seconds(
    server: Server, provenance: Provenance, make_point: MakePoint
) -> None:
    tracker = MlflowTracker(server.uri, "moesd", provenance, "")
    tracker.open("abc", "a sweep", [])
    tracker.finished()
    server.kill()
    start = time.monotonic()
    with pytest.raises(TrackerUnavailable, match=r"refused|reset|aborted|Max retries"):
        tracker.record(Infeasible(point=make_point(), reason="no room"), {})
    assert time.monotonic() - start < 10


def test_a_disk_that_fills_up_and_is_freed_has_every_point_once(uri: str) -> None:
    """The limit on a file's size stands for the disk: writes break off anywhere amid a record."""
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from moesd_dist.ports import TrackerUnavailable\n"
        "from moesd_dist.records import *\n"
        "from moesd_dist.tracking.mlflow import MlflowTracker\n"
        "from moesd_dist.tracking.provenance import Provenance\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "t = MlflowTracker(sys.argv[1], 'moesd', Provenance(command='c'), '')\n"
        "t.open('abc', 'a sweep', [])\n"
        "spec = ModelSpec(name='m', source=ModelSource.shape)\n"
        "load = WorkloadSpec(name='w', prompt_tokens_min=1, prompt_tokens_max=1, output_tokens=1)\n"
        "points = [SweepPoint(engine='e', target=spec, workload=load, batch_size=n, gamma=0)"
        " for n in range(1, 13)]\n"
        "path, never = Path(sys.argv[1].removeprefix('sqlite:///')), resource.RLIM_INFINITY\n"
        "outages = 0\n"
        "for point in points:\n"
        "    outcome = Infeasible(point=point, reason='x')\n"
        "    for room in (0, 8192, 16384, 28672, never):\n"
        "        limit = never if room == never else path.stat().st_size + room\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, never))\n"
        "        try:\n"
        "            t.record(outcome, {f'm{i}': 1.0 for i in range(30)})\n"
        "        except TrackerUnavailable: outages += 1\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (never, never))\n"
        "t.close('finished'); print(outages)\n"
    )
    command = [sys.executable, "-c", code, uri]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3
    counted = finished_runs(uri)
    assert (len(counted), set(counted.values())) == (12, {1})


def test_finished_is_written_after_everything_else(
    open_tracker: OpenTracker, make_point: MakePoint, make_measurement: MakeMeasurement, uri: str
) -> None:
    """A store that takes no metrics leaves a run without the tag: MLflow writes tags last."""
    tracker = open_tracker()
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON metrics "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    with pytest.raises(Exception, match="disk is full"):
        tracker.record(make_measurement(make_point()), {"speedup": 1.0})
    (run,) = _children(uri)
    assert run.data.tags[FINISHED_TAG] == "false"


def test_a_database_that_another_program_keeps_locked_is_an_outage(
    open_tracker: OpenTracker, make_point: MakePoint, uri: str
) -> None:
    tracker = open_tracker()
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackerUnavailable, match="locked"):
            tracker.record(Infeasible(point=make_point(), reason="no room"), {})
        other.execute("ROLLBACK")
    tracker.record(Infeasible(point=make_point(), reason="no room"), {})
    assert len(finished_runs(uri)) == 1


def test_nonsense_is_no_outage(open_tracker: OpenTracker, make_point: MakePoint) -> None:
    tracker = open_tracker()
    with pytest.raises(Exception, match=r"nan|number|float|value") as caught:
        tracker.record(Infeasible(point=make_point(), reason="x"), {"speedup": "fast"})  # type: ignore[dict-item]
    assert not isinstance(caught.value, TrackerUnavailable)


@pytest.mark.parametrize(
    ("status", "passes"),
    [
        pytest.param(408, True, id="too slow"),
        pytest.param(429, True, id="too many requests"),
        pytest.param(503, True, id="down"),
        pytest.param(404, False, id="not there"),
        pytest.param(403, False, id="not allowed"),
    ],
)
def test_the_status_of_an_answer_tells_an_outage(status: int, passes: bool) -> None:
    raised = TrackerUnavailable if passes else (RequestException, MlflowException)
    answer = Response()
    answer.status_code, answer._content = status, b"no json"
    for ask in (answer.raise_for_status, partial(verify_rest_response, answer, "/api")):
        with pytest.raises(raised), told():
            ask()


def test_writers_that_died_while_idle_are_replaced_and_nothing_is_doubled(
    open_tracker: OpenTracker, make_point: MakePoint, uri: str
) -> None:
    outcomes = [Infeasible(point=make_point(n), reason="no room") for n in range(1, 41)]
    tracker = open_tracker()
    assert tracker.record_many(outcomes[:20], [{}] * 20) == list(range(20))
    writers = multiprocessing.active_children()
    for writer in writers:
        writer.kill()
        writer.join()
    with pytest.raises(TrackerUnavailable, match="has died"):
        tracker.record_many(outcomes[20:], [{}] * 20)
    assert tracker.record_many(outcomes, [{}] * 40) == list(range(40))
    tracker.close("finished")
    assert set(finished_runs(uri).values()) == {1}
    assert (len(writers) > 0, len(finished_runs(uri))) == (True, 40)


def test_many_points_are_written_side_by_side_and_once(
    uri: str,
    provenance: Provenance,
    tmp_path: Path,
    make_point: MakePoint,
    make_measurement: MakeMeasurement,
) -> None:
    points = [make_point(batch_size) for batch_size in range(1, 121)]
    tracker = MlflowTracker(uri, "moesd", provenance, "")
    ledger = Ledger(tracker, Journal(tmp_path / "journal", tracker.driver))
    ledger.open("abc", "a sweep", points)
    ledger.record([make_measurement(point) for point in points])
    ledger.settle()
    ledger.close("finished")
    assert finished_runs(uri) == dict.fromkeys([p.point_id for p in points], 1)


def test_a_driver_that_is_killed_while_many_are_written_continues_without_a_duplicate(
    uri: str, tmp_path: Path
) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from moesd_dist.records import *\n"
        "from moesd_dist.sweep.journal import Journal\n"
        "from moesd_dist.sweep.ledger import Ledger\n"
        "from moesd_dist.tracking.mlflow import MlflowTracker\n"
        "from moesd_dist.tracking.provenance import Provenance\n"
        "if __name__ == '__main__':\n"
        "    t = MlflowTracker(sys.argv[1], 'moesd', Provenance(command='c'), '')\n"
        "    ledger = Ledger(t, Journal(Path(sys.argv[2]), t.driver))\n"
        "    spec = ModelSpec(name='m', source=ModelSource.shape)\n"
        "    load = WorkloadSpec(name='w', prompt_tokens_min=1, prompt_tokens_max=1, output_tokens=1)\n"
        "    points = [SweepPoint(engine='e', target=spec, workload=load, batch_size=n, gamma=0)"
        " for n in range(1, 141)]\n"
        "    ledger.open('abc', 'a sweep', points)\n"
        "    have = ledger.finished()\n"
        "    ledger.record([Infeasible(point=p, reason='x') for p in points"
        " if p.point_id not in have])\n"
        "    print('recorded', flush=True)\n"
        "    ledger.settle(); ledger.close('finished')\n"
    )
    script = tmp_path / "driver.py"
    script.write_text(code)
    command = [sys.executable, str(script), uri, str(tmp_path / "journal")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"recorded\n"
    for _ in range(600):
        if len(finished_runs(uri)) > 20:
            break
        time.sleep(0.1)
    child.kill()
    child.wait()
    time.sleep(0.5)
    assert 20 < len(finished_runs(uri)) < 140
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    counted = finished_runs(uri)
    assert (len(counted), set(counted.values())) == (140, {1})


def _children(uri: str):  # type: ignore[no-untyped-def]
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("moesd")
    assert experiment is not None
    return client.search_runs([experiment.experiment_id], "tags.`moesd.kind` = 'point'")
