"""An engine that takes a tenth of a second a repeat and breaks where it is told to."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from moesd_dist.records import Infeasible, Protocol, Repeat, SweepPoint
from moesd_dist.records.specs import ModelSource, ModelSpec, WorkloadSpec
from moesd_dist.sweep.grid import expand
from moesd_dist.sweep.grouping import EngineKey

REPEAT_S = 0.1
SLOW_S = 3.0
ALLOCATED_BYTES = 600 << 20  # at most, and the kernel ends it far below that


class FaultyEngine:
    """What it does is chosen by batch size, in the points with gamma 1; `once`: the first time only."""

    def __init__(self, key: EngineKey) -> None:
        told = {name: json.loads(text) for name, text in key.engine_args}
        self.folder, self.faults = Path(told["folder"]), told["faults"]

    def describe(self) -> Mapping[str, str]:
        return {"host": str(os.getpid()), "device_name": "faulty"}

    def infeasible(self, point: SweepPoint) -> Infeasible | None:
        return None

    def together(self, points: Sequence[SweepPoint]) -> bool:
        return True

    def warm_up(self, point: SweepPoint) -> None:
        """Leaves word of where the point is measured."""
        text = json.dumps({"pid": os.getpid(), "node": os.environ.get("MOESD_TEST_NODE", "")})
        (self.folder / f"at_{point.batch_size}_{point.gamma}_{time.time_ns()}").write_text(text)

    def measure(self, point: SweepPoint, repeat: int) -> Repeat:
        fault = self.faults.get(str(point.batch_size), "") if point.gamma else ""
        what, _, once = fault.partition(" ")
        if what and self.happens(point, once=bool(once)):
            suffer(what)
        time.sleep(REPEAT_S)
        return window(point)

    def routing(self, point: SweepPoint) -> tuple[int, int]:
        return 64, 8

    def close(self) -> None: ...

    def happens(self, point: SweepPoint, *, once: bool) -> bool:
        """Leaves word of when it happened first."""
        try:
            (self.folder / f"broke_{point.batch_size}").touch(exist_ok=False)
        except FileExistsError:
            return not once
        return True


def suffer(what: str) -> None:
    match what:
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(600)
        case "raise":
            raise MemoryError("no room for the drafts")
        case "slow":
            time.sleep(SLOW_S)
        case group:  # a memory group of the kernel, with a limit that the test has set
            (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
            held = bytearray(ALLOCATED_BYTES)
            held[::4096] = b"x" * len(held[::4096])


def window(point: SweepPoint) -> Repeat:
    rows, rounds = point.batch_size, 5
    return Repeat(
        seconds=REPEAT_S,
        rounds=rounds,
        tokens=rounds * rows,
        drafted=rounds * rows * point.gamma,
        accepted=0,
        accepted_per_position=(0,) * point.gamma,
        sequence_rounds=rounds * rows,
        draft_s=0.0,
        target_s=REPEAT_S,
        reject_s=0.0,
        tokens_per_forward=point.gamma + 1,
        median_target_s=REPEAT_S / rounds,
        median_draft_s=0.0,
    )


def points(folder: Path, batch_sizes: Sequence[int], faults: Mapping[int, str]) -> list[SweepPoint]:
    """A baseline and one SD point for each batch size."""
    folder.mkdir(exist_ok=True)
    told = {"folder": str(folder), "faults": {str(k): what for k, what in faults.items()}}
    base = SweepPoint(
        engine="faulty",
        target=ModelSpec(name="target", source=ModelSource.embedded),
        workload=WorkloadSpec(
            name="random", prompt_tokens_min=1, prompt_tokens_max=1, output_tokens=1
        ),
        batch_size=1,
        gamma=0,
        protocol=Protocol(repeats=2),
        engine_args=tuple((name, json.dumps(value)) for name, value in told.items()),
    )
    return expand(base, {"batch_size": list(batch_sizes), "gamma": [1]})
