"""An engine whose seconds follow a formula: every number that comes out can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from moesd_dist.records import (
    DraftMethod,
    Infeasible,
    ModelSource,
    ModelSpec,
    Protocol,
    Repeat,
    SdSpec,
    SweepPoint,
    WorkloadSpec,
)

TARGET = ModelSpec(name="target", source=ModelSource.embedded, location="target")
DRAFT = ModelSpec(name="draft", source=ModelSource.embedded, location="draft")


class FormulaEngine:
    """T_T = 10 ms per token and sequence, every second draft accepted; remembers what it was asked."""

    def __init__(self, *, memory: int = 10**12, breaks_at: int = 0) -> None:
        self.log: list[tuple[int, int, int]] = []  # (batch size, gamma, repeat)
        self.memory, self.breaks_at = memory, breaks_at
        self.foreign_cpu = 0.0
        self.engine_starts = 0  # of every repeat
        self.sees_experts = True
        self.closed = False

    def describe(self) -> Mapping[str, str]:
        return {"host": "here", "device_name": "formula", "version.torch": "0"}

    def infeasible(self, point: SweepPoint) -> Infeasible | None:
        if point.batch_size <= self.memory:
            return None
        return Infeasible(point=point, reason="too big", bytes_needed=2, bytes_available=1)

    def together(self, points: Sequence[SweepPoint]) -> bool:
        return True

    def warm_up(self, point: SweepPoint) -> None:
        if point.batch_size == self.breaks_at:
            raise RuntimeError("the device is on fire")

    def measure(self, point: SweepPoint, repeat: int) -> Repeat:
        self.log.append((point.batch_size, point.gamma, repeat))
        rounds, rows, gamma = 4, point.batch_size, point.gamma
        target_s = 0.01 * (1 + 0.5 * gamma) * (1 + 0.1 * repeat)
        accepted = rounds * rows * gamma // 2
        return Repeat(
            seconds=rounds * target_s,
            rounds=rounds,
            tokens=rounds * rows + accepted,
            drafted=rounds * rows * gamma,
            accepted=accepted,
            accepted_per_position=(rounds * rows,) * (gamma // 2) + (0,) * (gamma - gamma // 2),
            sequence_rounds=rounds * rows,
            draft_s=0.0,
            target_s=rounds * target_s,
            reject_s=0.0,
            tokens_per_forward=gamma + 1,
            median_target_s=target_s,
            median_draft_s=0.0,
            foreign_cpu=self.foreign_cpu,
            engine_starts=self.engine_starts,
            experts_seen=(8 * rounds,) if self.sees_experts else (),
            layer_forwards=rounds if self.sees_experts else 0,
        )

    def routing(self, point: SweepPoint) -> tuple[int, int]:
        return 64, 8

    def close(self) -> None:
        self.closed = True


class Silent:
    """A progress display that shows nothing."""

    def begin(self, total: int, done: int) -> None: ...

    def begin_round(self, planned: Any) -> None: ...

    def advance(self, outcome: Any) -> None: ...

    def note(self, text: str) -> None: ...

    def end(self) -> None: ...


@pytest.fixture
def formula_engine() -> type[FormulaEngine]:
    return FormulaEngine


@pytest.fixture
def silent() -> Silent:
    return Silent()


@pytest.fixture
def base() -> Callable[..., SweepPoint]:
    def make(**changes: Any) -> SweepPoint:
        fields: dict[str, Any] = {
            "engine": "transformers",
            "target": TARGET,
            "workload": WorkloadSpec(
                name="stdlib_code", prompt_tokens_min=8, prompt_tokens_max=8, output_tokens=8
            ),
            "batch_size": 1,
            "gamma": 0,
            "sd": SdSpec(method=DraftMethod.draft_model, draft=DRAFT),
            "protocol": Protocol(repeats=3),
        }
        return SweepPoint(**(fields | changes))

    return make
