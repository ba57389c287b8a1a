"""What is said about a point, and how it is written down: that it ended so, or that this is void."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moesd_dist.records import Outcome
from moesd_dist.records.serial import outcome_from_plain, to_plain

HEAVY_BYTES = 1 << 16  # a word of so many is not kept in memory: expert loads are megabytes
WITHDRAWN = "withdrawn"
OUTCOME = "outcome"


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """The point's outcome no longer counts."""

    point_id: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """Something said about a point; words are numbered in the order in which they were said.

    A heavy one stays on the disk: `said` is None, and `place` tells where it begins.
    """

    number: int
    point_id: str
    place: int
    said: Outcome | Withdrawal | None


def line_of(number: int, said: Outcome | Withdrawal) -> str:
    if isinstance(said, Withdrawal):
        return as_line({"kind": WITHDRAWN, "n": number, "id": said.point_id, "why": said.why})
    point_id = said.point.point_id
    return as_line({"kind": OUTCOME, "n": number, "id": point_id, "outcome": to_plain(said)})


def word_at(number: int, place: int, line: str, said: Outcome | Withdrawal) -> Word:
    point_id = said.point_id if isinstance(said, Withdrawal) else said.point.point_id
    kept = said if len(line) <= HEAVY_BYTES else None
    return Word(number=number, point_id=point_id, place=place, said=kept)


def said_in(line: str) -> Outcome | Withdrawal:
    entry = json.loads(line)
    if entry["kind"] == WITHDRAWN:
        return Withdrawal(point_id=entry["id"], why=entry["why"])
    return outcome_from_plain(entry["outcome"])


def as_line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, separators=(",", ":"))
