"""Engines that cannot start, hang, are killed or do not fit: a record each, and the sweep goes on."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from moesd_dist.engines.vllm.engine import VllmEngine
from moesd_dist.engines.vllm.host import CHILD, Timeouts
from moesd_dist.models.sources import EMBEDDED
from moesd_dist.records import (
    Device,
    DraftMethod,
    Failed,
    Infeasible,
    Measurement,
    ModelSource,
    Outcome,
    RankPlace,
    Repeat,
    SdSpec,
    SweepPoint,
)
from moesd_dist.sweep.driver import InlineExecutor, SweepResult, measure_or_fail, run_sweep
from moesd_dist.sweep.grouping import Group
from moesd_dist.sweep.ledger import Ledger
from moesd_dist.sweep.pairing import LoadLimit
from moesd_dist.tracking.memory import MemoryTracker
from tests.engines.vllm import apart
from tests.engines.vllm.points import DRAFT, FIXED, TARGET, WORK, point

pytestmark = pytest.mark.usefixtures("vllm_env")
BATCHES = (1, 2, 3, 4)
HANGS, KILLED = 2, 3  # batch sizes at which something happens to an engine
REFUSED = 5  # the batch size of a group whose prompts are not there
ANY_LOAD = LoadLimit(cores=99.0)
TIMEOUTS = Timeouts(start_s=150.0, answer_s=6.0)


@dataclass
class Seen:
    """Processes that were there while the sweep ran, and what they had in shared memory."""

    processes: set[psutil.Process] = field(default_factory=set)
    segments: set[Path] = field(default_factory=set)

    def note(self) -> None:
        self.processes.update(psutil.Process().children(recursive=True))
        self.segments |= set().union(*(mapped_by(process.pid) for process in self.processes))


class Sabotaged(VllmEngine):
    """At batch size HANGS the SD engine hangs in its second repeat, at KILLED the baseline's dies."""

    def __init__(self, seen: Seen) -> None:
        super().__init__(device=Device.cpu, place=RankPlace(), timeouts=TIMEOUTS)
        self._seen_by_test = seen

    def measure(self, point: SweepPoint, repeat: int) -> Repeat:
        self._seen_by_test.note()
        processes = engine_processes()  # the baseline's is the oldest
        match (point.batch_size, point.gamma, repeat):
            case (batch, 1, 1) if batch == HANGS:
                processes[-1].send_signal(signal.SIGSTOP)
            case (batch, 0, 1) if batch == KILLED:
                processes[0].send_signal(signal.SIGKILL)
        return super().measure(point, repeat)


class Silent:
    """A progress display that shows nothing."""

    def begin(self, total: int, done: int) -> None: ...

    def begin_round(self, planned: Any) -> None: ...

    def advance(self, outcome: Outcome) -> None: ...

    def note(self, text: str) -> None: ...

    def end(self) -> None: ...


@dataclass(frozen=True)
class Sweep:
    result: SweepResult
    seen: Seen

    def of(self, batch_size: int, gamma: int) -> Outcome:
        (found,) = (
            outcome
            for outcome in self.result.outcomes
            if (outcome.point.batch_size, outcome.point.gamma) == (batch_size, gamma)
        )
        return found


@pytest.fixture(scope="module")
def unloadable(tmp_path_factory: pytest.TempPathFactory) -> SdSpec:
    """A draft of an architecture that vLLM does not have."""
    folder = tmp_path_factory.mktemp("drafts") / "unloadable"
    shutil.copytree(EMBEDDED / "draft", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["NobodysModel"]}))
    draft = replace(DRAFT, source=ModelSource.checkpoint, location=str(folder))
    return SdSpec(method=DraftMethod.draft_model, draft=draft)


@pytest.fixture(scope="module")
def sweep(unloadable: SdSpec) -> Sweep:
    """Gamma 1 works, gamma 2 is of a setting that cannot start; see Sabotaged for the rest."""
    members = (point().baseline, point(gamma=1, sd=FIXED), point(gamma=2, sd=unloadable))
    nowhere = replace(WORK, name="jsonl", path="/no/prompts.jsonl")
    points = [replace(p, batch_size=REFUSED, workload=nowhere) for p in members[:2]]
    points += [replace(p, batch_size=batch_size) for batch_size in BATCHES for p in members]
    seen = Seen()
    executor = InlineExecutor(lambda _: Sabotaged(seen), lambda _: ANY_LOAD)
    tracker = MemoryTracker()
    tracker.open("id", "failures", points)
    return Sweep(run_sweep(points, Ledger(tracker), executor, Silent()), seen)


def test_a_call_that_is_refused_fails_its_group_with_the_engines_log(sweep):
    failed = sweep.of(REFUSED, 0)
    assert isinstance(failed, Failed)
    assert "/no/prompts.jsonl" in failed.reason
    assert "Traceback" in failed.log.partition("the end of its log:")[2]


def test_a_setting_that_cannot_start_fails_and_the_others_of_its_group_are_measured(sweep):
    kinds = [type(sweep.of(1, gamma)) for gamma in range(3)]
    assert kinds == [Measurement, Measurement, Failed]


def test_the_reason_is_one_line_and_the_engines_log_goes_along(sweep):
    failed = sweep.of(1, 2)
    assert "vLLM could not start" in failed.reason
    assert "NobodysModel" in failed.reason
    assert len(failed.reason.splitlines()) == 1
    assert "the end of its log:" in failed.log
    assert "Traceback" in failed.log.partition("the end of its log:")[2]


def test_a_setting_that_cannot_start_is_not_started_again(sweep):
    """The reason names the log, and each start has a log of its own."""
    (reason,) = {sweep.of(batch, 2).reason for batch in BATCHES if batch != KILLED}
    assert "its log is" in reason


def test_an_engine_that_hangs_fails_its_point_alone(sweep):
    failed = sweep.of(HANGS, 1)
    assert isinstance(failed, Failed)
    assert "did not answer session within 6 s and was stopped" in failed.reason
    assert "the end of its log:" in failed.log
    assert isinstance(sweep.of(HANGS, 0), Measurement)


def test_a_killed_baseline_fails_its_group(sweep):
    failed = [sweep.of(KILLED, gamma) for gamma in range(3)]
    assert {type(outcome) for outcome in failed} == {Failed}
    assert "the engine's process died in session" in failed[0].reason
    assert "the end of its log:" in failed[0].log


def test_the_group_after_a_failure_is_measured_by_fresh_engines(sweep):
    assert [type(sweep.of(4, gamma)) for gamma in (0, 1)] == [Measurement, Measurement]


def test_no_process_and_no_shared_memory_is_left(sweep):
    assert len(sweep.seen.processes) >= 4  # two engines, and each of them once more
    assert not [process for process in sweep.seen.processes if lives(process)]
    assert engine_processes() == []
    assert not {segment for segment in sweep.seen.segments if segment.exists()}


@pytest.fixture
def engine() -> Iterator[VllmEngine]:
    engine = VllmEngine(device=Device.cpu, place=RankPlace(), timeouts=TIMEOUTS)
    yield engine
    engine.close()


def alone(one: SweepPoint) -> Group:
    return Group(baseline=one, points=(), baseline_is_new=True)


def test_a_model_beyond_memory_is_infeasible_before_anything_is_started(engine):
    layers = {"hidden_size": 65536, "num_hidden_layers": 1000, "intermediate_size": 262144}
    config = json.loads((EMBEDDED / "target" / "config.json").read_text()) | layers
    items = tuple((key, json.dumps(value)) for key, value in config.items())
    huge = replace(TARGET, name="huge", source=ModelSource.shape, location="", config=items)
    one = point(target=huge, workload=replace(WORK, name="random")).baseline
    (found,) = measure_or_fail(engine, alone(one), ANY_LOAD)
    assert isinstance(found, Infeasible)
    assert "GiB of each cpu device" in found.reason
    assert found.bytes_needed > found.bytes_available > 0
    assert engine_processes() == []


def test_a_cache_too_small_for_one_sequence_is_vllms_own_line(engine):
    longer = replace(WORK, output_tokens=100)
    one = point(workload=longer, engine_args=(("kv_cache_memory_bytes", "600000"),)).baseline
    (found,) = measure_or_fail(engine, alone(one), ANY_LOAD)
    assert isinstance(found, Failed)
    assert "KV cache" in found.reason
    assert len(found.reason.splitlines()) == 1
    assert engine_processes() == []


def engine_processes() -> list[psutil.Process]:
    """Ours, the oldest first."""
    children = psutil.Process().children()
    return sorted((p for p in children if is_engine(p)), key=psutil.Process.create_time)


def is_engine(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return CHILD in process.cmdline()
    return False


def lives(process: psutil.Process) -> bool:
    """Not as a zombie, which is but an entry in a table."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def mapped_by(pid: int) -> set[Path]:
    with contextlib.suppress(OSError):
        return apart.mapped(Path(f"/proc/{pid}/maps"))
    return set()
