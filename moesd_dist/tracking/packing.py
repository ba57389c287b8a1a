"""A record squeezed into a run's tags, so that one search brings back a whole sweep."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from itertools import count, takewhile

from moesd_dist.records import Outcome
from moesd_dist.records.serial import outcome_from_plain, to_plain
from moesd_dist.records.slim import without_expert_load

TAG = "moesd.record."
_CHUNK = 5000  # characters of one tag: MLflow 3 takes 8000, older servers 5000


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
