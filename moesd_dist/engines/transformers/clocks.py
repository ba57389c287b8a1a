"""Seconds per phase of a round: the processor's clock, or events on the GPU's own time line."""

from __future__ import annotations

import time
from typing import Protocol

import torch


class Clock(Protocol):
    def start(self) -> None: ...

    def lap(self) -> None:
        """Ends a phase and starts the next."""
        ...

    def seconds(self) -> list[float]:
        """One number a phase; waits for the device to be done."""
        ...


class CpuClock:
    """Everything is synchronous, so wall-clock time is the phase's time."""

    def __init__(self) -> None:
        self._marks: list[float] = []

    def start(self) -> None:
        self._marks = [time.perf_counter()]

    def lap(self) -> None:
        self._marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        return [b - a for a, b in zip(self._marks, self._marks[1:], strict=False)]


class CudaClock:
    """Events queue behind the kernels they close, so launching ahead is not mistaken for speed."""

    def __init__(self) -> None:
        self._marks: list[torch.cuda.Event] = []

    def start(self) -> None:
        self._marks = []
        self.lap()

    def lap(self) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append(event)

    def seconds(self) -> list[float]:
        self._marks[-1].synchronize()
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return [a.elapsed_time(b) / 1e3 for a, b in pairs]


def clock_for(device: torch.device) -> Clock:
    return CudaClock() if device.type == "cuda" else CpuClock()
