"""One loaded LLM in a process of its own, and the calls it answers."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesd_dist.engines.vllm.child_log import ChildLog
from moesd_dist.engines.vllm.memory import DeviceMemory, cuda_arguments, needed_bytes
from moesd_dist.engines.vllm.process import ChildProcess, EngineDied, EngineRefused
from moesd_dist.engines.vllm.settings import engine_arguments, environment
from moesd_dist.records import Device, RankPlace, SweepPoint

CHILD = "moesd_dist.engines.vllm.child"
ENGINE_DEAD = "EngineDeadError"  # vLLM's front end outlived its core


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds until an engine counts as hung."""

    start_s: float = 1800.0
    answer_s: float = 900.0


class LoadedLLM:
    """Starts on construction; RuntimeError with one line and the log if vLLM does not."""

    def __init__(
        self,
        point: SweepPoint,
        place: RankPlace,
        *,
        sequences: int,
        memory: DeviceMemory,
        timeouts: Timeouts,
    ) -> None:
        self.sequences, self._timeouts, self.dead = sequences, timeouts, False
        self.needed = needed_bytes(point, sequences)
        arguments = engine_arguments(point, max_num_seqs=sequences)
        if point.device is Device.cuda:
            arguments = {**cuda_arguments(point, sequences, memory), **arguments}
        folder = Path(tempfile.mkdtemp(prefix="moesd-vllm-"))
        self._log = ChildLog(folder / f"rank{place.rank}.log")
        self._child = ChildProcess(CHILD, environment(point, place), self._log.path)
        try:
            self.about: dict[str, Any] = self._child.call(
                "start", timeout_s=timeouts.start_s, arguments=arguments, place=place
            )
        except EngineRefused as error:
            raise self._child.abandon("vLLM could not start") from error

    def call(self, method: str, **arguments: Any) -> Any:
        """A method of the session; EngineDied if the process did, EngineRefused if only this failed."""
        wait = self._timeouts.answer_s
        try:
            return self._child.call("session", timeout_s=wait, method=method, arguments=arguments)
        except EngineDied:
            self.dead = True
            raise
        except EngineRefused as error:
            if error.kind != ENGINE_DEAD:
                # A record keeps the printed traceback; the child's own is in its log.
                error.add_note(f"the end of its log:\n{self._log.tail()}")
                raise
            self.dead = True
            raise self._child.abandon("vLLM's engine died") from error

    def close(self) -> None:
        """The log stays where something went wrong: the record quotes only its end."""
        self._child.close()
        if not self.dead:
            shutil.rmtree(self._log.path.parent, ignore_errors=True)
