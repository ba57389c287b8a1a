"""Marks on the time line of a step: the processor's clock, or events on the GPU's own."""

from __future__ import annotations

import time
from typing import Any, Protocol


class TimeLine(Protocol):
    """Marks are taken while the engine runs and read when it is done: nothing waits in between."""

    def mark(self) -> Any: ...

    def seconds(self, earlier: Any, later: Any) -> float: ...

    def wait(self) -> None:
        """Until every mark has been passed."""
        ...


class CpuTimeLine:
    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, earlier: float, later: float) -> float:
        return later - earlier

    def wait(self) -> None:
        return None


class CudaTimeLine:
    """Events queue behind the kernels they follow, so launching ahead is not mistaken for speed.

    Synchronising at every mark instead would stop vLLM from preparing a step during the last one.
    """

    def mark(self) -> Any:
        import torch

        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self, earlier: Any, later: Any) -> float:
        return float(earlier.elapsed_time(later)) / 1e3

    def wait(self) -> None:
        import torch

        torch.cuda.synchronize()


def time_line(device_type: str) -> TimeLine:
    return CudaTimeLine() if device_type == "cuda" else CpuTimeLine()
