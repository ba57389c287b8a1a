"""A record squeezed into a run's tags, so that one search brings back a whole sweep."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import replace
from itertools import count, takewhile
from typing import TypeVar

from moesd_dist.records import Measurement, Outcome
from moesd_dist.records.serial import outcome_from_plain, to_plain

TAG = "moesd.record."
_CHUNK = 5000  # characters of one tag: MLflow 3 takes 8000, older servers 5000

O = TypeVar("O", bound=Outcome)  # noqa: E741


def pack(outcome: Outcome) -> dict[str, str]:
    """`moesd.record.0`, `.1`, ...: zlib and base64 of its JSON, without the expert load."""
    text = json.dumps(to_plain(without_expert_load(outcome)), separators=(",", ":"))
    packed = base64.b64encode(zlib.compress(text.encode())).decode()
    starts = range(0, len(packed), _CHUNK)
    return {f"{TAG}{i}": packed[start : start + _CHUNK] for i, start in enumerate(starts)}


def unpack(tags: Mapping[str, str]) -> Outcome:
    keys = takewhile(tags.__contains__, (f"{TAG}{i}" for i in count()))
    packed = base64.b64decode("".join(tags[key] for key in keys))
    return outcome_from_plain(json.loads(zlib.decompress(packed)))


def without_expert_load(outcome: O) -> O:
    """The load is [layer][expert] per repeat: megabytes in a sweep, so it stays in the artifact."""
    if not isinstance(outcome, Measurement):
        return outcome
    if not any(r.expert_load for r in (*outcome.repeats, *outcome.baseline)):
        return outcome
    return replace(
        outcome,
        repeats=tuple(replace(r, expert_load=()) for r in outcome.repeats),
        baseline=tuple(replace(r, expert_load=()) for r in outcome.baseline),
    )
