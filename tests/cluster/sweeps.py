"""Runs a sweep of the faulty engine with a real store, breaks something meanwhile, and counts what is kept."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from moesd_dist.records import Outcome, SweepPoint
from moesd_dist.sweep.cluster.crew import ClusterSettings
from moesd_dist.sweep.cluster.executor import RayExecutor
from moesd_dist.sweep.cluster.live import Terms
from moesd_dist.sweep.driver import SweepResult, run_sweep
from moesd_dist.sweep.journal import Journal
from moesd_dist.sweep.ledger import Ledger
from moesd_dist.sweep.retries import RetryRule
from moesd_dist.sweep.schedule.needs import Needs
from moesd_dist.sweep.stopping import Stop
from moesd_dist.tracking.mlflow import MlflowTracker
from moesd_dist.tracking.provenance import Provenance
from tests.cluster import faulty
from tests.cluster.kept import FINISHED, kept
from tests.cluster.nodes import Cluster, wait

EXPERIMENT = "faults"
PATIENCE_S = 60.0


class Witness:
    """A progress display that keeps what it is told, with the time."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, str]] = []
        self.arrived: list[Outcome] = []

    def begin(self, total: int, done: int) -> None: ...

    def begin_round(self, planned: Any) -> None: ...

    def advance(self, outcome: Outcome) -> None:
        self.arrived.append(outcome)

    def note(self, text: str) -> None:
        self.heard.append((time.time(), text))

    def end(self) -> None: ...


@dataclass(slots=True)
class Sweep:
    """One sweep with its folder; the fault is made by a second thread while the first runs it."""

    folder: Path
    batch_sizes: Sequence[int]
    faults: Mapping[int, str] = field(default_factory=dict)
    uri: str = ""
    address: str = ""
    deadline_s: float = 60.0
    witness: Witness = field(default_factory=Witness)
    stop: Stop = field(default_factory=Stop)
    broken_at: float = 0.0
    result: SweepResult | None = None
    ledger: Ledger | None = None

    def __post_init__(self) -> None:
        self.uri = self.uri or f"sqlite:///{self.folder}/mlflow.db"

    @property
    def points(self) -> list[SweepPoint]:
        return faulty.points(self.folder / "engines", self.batch_sizes, self.faults)

    def run(self, fault: Callable[[Sweep], None] | None = None) -> SweepResult:
        """`fault` begins with waiting for its moment; what it raises is raised here."""
        tracker = MlflowTracker(self.uri, EXPERIMENT, Provenance(command="a test"), "a: 1\n")
        journal = Journal(self.folder / "journal")
        self.ledger = Ledger(tracker, journal=journal, patience_s=PATIENCE_S)
        settings = ClusterSettings(
            address=self.address,
            rule=RetryRule(backoff_s=0.2),
            deadline_factor=1.0,  # of a guess of one second
            deadline_min_s=self.deadline_s,
            close_s=2.0,
        )
        terms = Terms(needs=Needs(cpus=1))
        executor = RayExecutor(faulty.FaultyEngine, lambda _: terms, settings, stop=self.stop)
        self.ledger.open("a-sweep", "faults", self.points)
        status = "incomplete"
        with ThreadPoolExecutor(1) as second:
            breaking = second.submit(fault or _nothing, self)
            try:
                self.result = run_sweep(
                    self.points, self.ledger, executor, self.witness, stop=self.stop
                )
                status = "failed" if self.result.failed else "finished"
            finally:
                self.ledger.close(status)
            breaking.result()
        return self.result

    def again(self) -> Sweep:
        """The same sweep by the next driver."""
        return replace(self, witness=Witness(), stop=Stop(), broken_at=0.0, result=None)

    def wait_for(self, batch_size: int) -> dict[str, Any]:
        """Until the batch size is being measured: by which process, on which node."""
        pattern = f"at_{batch_size}_1_*"
        folder = self.folder / "engines"
        wait(lambda: any(folder.glob(pattern)), f"B={batch_size} is measured")
        last = max(folder.glob(pattern))
        wait(lambda: last.read_text() != "", "it says where")
        return dict(json.loads(last.read_text()))

    def wait_for_outage(self) -> float:
        """Until the ledger knows that the tracker does not answer: seconds since the fault."""
        unknown = "it was not waited for"
        wait(lambda: unknown not in (self.ledger.left_behind or unknown), "an outage")
        print(f"\n{self.ledger.left_behind}")
        return time.time() - self.broken_at

    def noticed_s(self, text: str) -> float:
        """From the fault that was made to the first word of it."""
        return self._word_of(text) - self.broken_at

    def noticed_at_s(self, batch_size: int) -> float:
        """From what the engine did at this size to the first word of it."""
        mark = self.folder / "engines" / f"broke_{batch_size}"
        return self._word_of(f" of B={batch_size} ") - mark.stat().st_mtime

    def _word_of(self, text: str) -> float:
        found = [at for at, said in self.witness.heard if text in f"{said} "]
        assert found, f"nobody said {text!r}: {self.witness.heard}"
        return found[0]

    def say(self, fault: str, seconds: float | None = None) -> None:
        """A line of the table in docs/reliability.md."""
        assert self.result is not None
        kept = Counter(type(outcome).__name__ for outcome in self.result.outcomes)
        told = "" if seconds is None else f"noticed after {seconds:.2f} s; "
        counts = ", ".join(f"{kept[kind]} {kind}" for kind in sorted(kept))
        print(f"\nFAULT {fault}: {told}{counts} of {len(self.points)} points")

    def of(self, batch_size: int) -> dict[int, Outcome]:
        """By gamma."""
        assert self.result is not None
        return {o.point.gamma: o for o in self.result.outcomes if o.point.batch_size == batch_size}

    def kept_once(self) -> None:
        """Every point is one run of MLflow: a finished one, or one that says why not."""
        assert self.result is not None
        failed = {outcome.point.point_id: outcome.reason for outcome in self.result.failed}
        assert kept(self.uri, EXPERIMENT) == {
            p.point_id: failed.get(p.point_id, FINISHED) for p in self.points
        }


def _nothing(_sweep: Sweep) -> None: ...


@contextmanager
def breaks(sweep: Sweep) -> Iterator[None]:
    """The fault is made in here; its time is taken when it begins."""
    sweep.broken_at = time.time()
    yield


def two_nodes(cluster: Cluster, folder: Path, database: Path, **fields: Any) -> Sweep:
    """A sweep on two nodes, whatever the test before left of them."""
    while len(cluster.nodes) < 2:
        cluster.add()
    cluster.wait_ready()
    shutil.copy(database, folder / "mlflow.db")
    return Sweep(folder, address=cluster.address, **fields)
