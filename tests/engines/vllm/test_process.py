"""Children that die, hang, hide and leave shared memory behind; no vLLM needed."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import psutil
import pytest

from moesd_dist.engines.vllm.child_log import telling_line
from moesd_dist.engines.vllm.failures import EngineDied, EngineRefused
from moesd_dist.engines.vllm.process import ChildProcess

SHM = Path("/dev/shm")
pytestmark = pytest.mark.skipif(not SHM.is_dir(), reason="vLLM runs on Linux only")

CHILD = """
    import os, signal, subprocess, sys, time
    from moesd_dist.engines.vllm.serving import open_channel, serve

    def start(setsid=False, segment="", stubborn=False, environment=None):
        command = [sys.executable, "-m", "grandchild", segment, str(stubborn)]
        environment = os.environ if environment is None else environment
        worker = subprocess.Popen(
            command, start_new_session=setsid, stdout=subprocess.PIPE, env=environment
        )
        worker.stdout.readline()
        return worker.pid

    def load(workers):
        return [start(**worker) for worker in workers]

    def refuse(text):
        raise ValueError(text)

    def orphan(note, **worker):
        open(note, "w").write(str(start(**worker)))
        os._exit(1)

    def hang():
        time.sleep(600)

    def end(code):
        print("CustomError: the disk is full", flush=True)
        os._exit(code)

    def crash():
        os.kill(os.getpid(), signal.SIGKILL)

    handlers = {f.__name__: f for f in (load, refuse, orphan, hang, end, crash)}
    handlers["add"] = lambda a, b: a + b
    serve(open_channel(), handlers)
    os._exit(0)
"""
GRANDCHILD = """
    import signal, sys, time
    from multiprocessing import resource_tracker, shared_memory

    if sys.argv[2] == "True":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.argv[1]:
        resource_tracker.register = lambda *_: None  # as if the tracker had been killed with it
        segment = shared_memory.SharedMemory(sys.argv[1], create=True, size=4096)
    print("ready", flush=True)
    time.sleep(600)
"""
BROKEN = """
    print("(EngineCore pid=7) ERROR 11-20 09:30:00 [core.py:9] ValueError: no such model")
    raise RuntimeError("Engine core initialization failed. See root cause above.")
"""
PARENT = """
    import sys, time
    from pathlib import Path
    from moesd_dist.engines.vllm.process import ChildProcess

    child = ChildProcess("child", {}, Path(sys.argv[1]))
    workers = [{"setsid": True, "segment": sys.argv[2], "stubborn": True}, {}]
    print(child._popen.pid, *child.call("load", timeout_s=20, workers=workers), flush=True)
    child.call("hang", timeout_s=600)
"""
MODULES = {"child": CHILD, "grandchild": GRANDCHILD, "broken": BROKEN, "parent": PARENT}

Start = Callable[..., ChildProcess]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
    root = Path(__file__).parents[3]
    return {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str]) -> Iterator[Start]:
    started: list[ChildProcess] = []

    def begin(module: str = "child") -> ChildProcess:
        started.append(ChildProcess(module, environment, tmp_path / "logs" / "child.log"))
        return started[-1]

    yield begin
    for child in started:
        child.close(timeout_s=0)


@pytest.fixture
def segment() -> Iterator[str]:
    name = f"psm_moesd_test_{os.getpid()}"
    yield name
    (SHM / name).unlink(missing_ok=True)


def lives(pid: int) -> bool:
    """A zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def died(child: ChildProcess, name: str, timeout_s: float = 20, **arguments: object) -> EngineDied:
    with pytest.raises(EngineDied) as caught:
        child.call(name, timeout_s=timeout_s, **arguments)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def test_answers_come_back_and_closing_twice_is_fine(start: Start) -> None:
    child = start()
    assert child.call("add", timeout_s=20, a=[1], b=["two"]) == [1, "two"]
    assert child.call("add", timeout_s=20, a=1, b=2.5) == 3.5
    child.close()
    child.close()
    with pytest.raises(EngineDied, match="closed; make a new engine"):
        child.call("add", timeout_s=20, a=1, b=2)


def test_an_exception_is_told_in_one_line_and_the_child_lives_on(start: Start) -> None:
    child = start()
    with pytest.raises(EngineRefused) as caught:
        child.call("refuse", timeout_s=20, text="gamma 9\n  is too large")
    assert str(caught.value) == "ValueError: gamma 9 is too large"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(EngineRefused, match="no function is called 'fly'; there are load, refuse"):
        child.call("fly", timeout_s=20)
    assert child.call("add", timeout_s=20, a=1, b=1) == 2


def test_a_child_that_dies_at_start_is_told_with_the_root_cause(
    start: Start, tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "child.log"
    log.parent.mkdir()
    log.write_text("KeyError: of an earlier run\n")
    error = died(start("broken"), "load", workers=[])
    assert "died at start (exit code 1): ValueError: no such model; its log is" in str(error)
    assert str(log) in str(error)
    assert "Traceback" in error.log
    assert "earlier run" not in error.log
    printed = "".join(traceback.format_exception(error))
    assert "raise RuntimeError" in printed, "a failed record keeps the log"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_what_an_earlier_call_survived_is_not_blamed(start: Start) -> None:
    child = start()
    with pytest.raises(EngineRefused):
        child.call("refuse", timeout_s=20, text="survived")
    error = died(child, "crash")
    assert "died in crash (killed by SIGKILL, often for want of memory)" in str(error)
    assert "survived" not in str(error)
    assert "survived" in error.log


def test_a_refusal_can_be_made_the_end(start: Start) -> None:
    child = start()
    with pytest.raises(EngineRefused):
        child.call("refuse", timeout_s=20, text="no room")
    error = child.abandon("the engine could not start")
    assert str(error).startswith("the engine could not start: ValueError: no room; its log is")
    assert not lives(child._popen.pid)


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        pytest.param("end", {"code": 3}, "(exit code 3): CustomError: the disk is full", id="ends"),
        pytest.param("crash", {}, "killed by SIGKILL", id="is killed"),
        pytest.param("hang", {}, "did not answer hang within 0.5 s and was stopped", id="hangs"),
    ],
)
def test_nothing_outlives_a_child_that(
    name: str, arguments: dict[str, int], told: str, start: Start, segment: str
) -> None:
    child = start()
    workers = [{}, {"setsid": True, "segment": segment, "stubborn": name == "hang"}]
    pids = [child._popen.pid, *child.call("load", timeout_s=20, workers=workers)]
    assert (SHM / segment).exists()
    assert all(map(lives, pids))
    error = died(child, name, timeout_s=0.5 if name == "hang" else 20, **arguments)
    assert told in str(error)
    if name == "hang":
        assert "in hang" in error.log, "the stacks of a child that hangs are in its log"
    assert not any(map(lives, pids))
    assert not (SHM / segment).exists()


def test_a_worker_that_left_the_session_and_its_environment_is_found(start: Start) -> None:
    child = start()
    child.call("load", timeout_s=20, workers=[])  # its environment is its own by now
    bare = {"PYTHONPATH": psutil.Process(child._popen.pid).environ()["PYTHONPATH"]}
    worker = {"setsid": True, "environment": bare}
    pids = child.call("load", timeout_s=20, workers=[worker])
    died(child, "crash")
    assert not any(map(lives, pids))


def test_a_worker_that_left_the_session_of_a_child_that_died_at_once_is_found(
    start: Start, tmp_path: Path, segment: str
) -> None:
    note = tmp_path / "pid"
    died(start(), "orphan", note=str(note), setsid=True, segment=segment)
    assert not lives(int(note.read_text()))
    assert not (SHM / segment).exists()


def test_an_interrupted_call_ends_the_child(start: Start) -> None:
    child = start()
    child.call("add", timeout_s=20, a=1, b=1)
    interrupt = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        child.call("hang", timeout_s=20)
    assert not lives(child._popen.pid)
    with pytest.raises(EngineDied, match="hang having been interrupted"):
        child.call("add", timeout_s=20, a=1, b=1)


def test_the_end_of_the_parent_is_the_end_of_all(
    environment: dict[str, str], tmp_path: Path, segment: str
) -> None:
    command = [sys.executable, "-m", "parent", str(tmp_path / "log"), segment]
    parent = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    with parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 3
        assert (SHM / segment).exists()
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while any(map(lives, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(lives, pids))
    assert not (SHM / segment).exists()


def test_shared_memory_that_another_process_uses_stays(start: Start, segment: str) -> None:
    child = start()
    child.call("load", timeout_s=20, workers=[{"segment": segment}])
    ours = SharedMemory(segment)
    try:
        child.close()
        assert (SHM / segment).exists()
    finally:
        ours.close()
        ours.unlink()


def test_a_forgotten_child_is_stopped(environment: dict[str, str], tmp_path: Path) -> None:
    child = ChildProcess("child", environment, tmp_path / "log")
    pids = [child._popen.pid, *child.call("load", timeout_s=20, workers=[{}])]
    del child
    assert not any(map(lives, pids))


@pytest.mark.parametrize(
    ("log", "line"),
    [
        pytest.param("INFO all is well\n", "", id="no error"),
        pytest.param("OSError: a\nValueError: b\n", "ValueError: b", id="the last error"),
        pytest.param(
            "(EngineCore pid=12) ERROR 11-20 09:30:00 [core.py:9]     raise ValueError(x)\n"
            "(EngineCore pid=12) ERROR 11-20 09:30:00 [core.py:9] ValueError: bad x\n"
            "RuntimeError: Engine core initialization failed. See root cause above. Failed: {}\n",
            "ValueError: bad x",
            id="what follows from it is passed over",
        ),
        pytest.param(
            "\x1b[1;36m(Worker_TP0 pid=3)\x1b[0;0m torch.OutOfMemoryError: CUDA out of memory.\n"
            "(EngineCore_DP0 pid=4) Exception: WorkerProc initialization failed due to an exception "
            "in a background process. See stack trace for root cause.\n",
            "torch.OutOfMemoryError: CUDA out of memory.",
            id="a worker's error in colour",
        ),
        pytest.param(
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "  Value error, no kernel [type=value_error, input_value=1]\n"
            "    For further information visit https://errors.pydantic.dev\n",
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig: "
            "Value error, no kernel",
            id="pydantic's reason stands on the next line",
        ),
        pytest.param(
            "Fatal Python error: Segmentation fault\n\nThread 0x1:\n",
            "Fatal Python error: Segmentation fault",
            id="a crash in C",
        ),
        pytest.param(
            "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.\n",
            "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.",
            id="better a follower than nothing",
        ),
        pytest.param("x\n[rank1]: AssertionError\n", "AssertionError", id="an error without text"),
    ],
)
def test_the_most_telling_line_of_a_log_is(log: str, line: str) -> None:
    assert telling_line(log) == line
