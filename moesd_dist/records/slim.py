"""Outcomes without the one field that is megabytes in size."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from moesd_dist.records.measurement import Measurement
from moesd_dist.records.outcome import Outcome

O = TypeVar("O", bound=Outcome)  # noqa: E741


def without_expert_load(outcome: O) -> O:
    """The load is [layer][expert] per repeat: it stays in the journal and in the artifact."""
    if not isinstance(outcome, Measurement):
        return outcome
    if not any(r.expert_load for r in (*outcome.repeats, *outcome.baseline)):
        return outcome
    return replace(
        outcome,
        repeats=tuple(replace(r, expert_load=()) for r in outcome.repeats),
        baseline=tuple(replace(r, expert_load=()) for r in outcome.baseline),
    )
