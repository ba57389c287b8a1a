"""A name for a record that every machine and every later version computes alike."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import Any


def identity(record: Any) -> str:
    """16 hex digits over the fields that differ from their defaults.

    Leaving defaults out keeps old identities valid when a later version adds a field, provided
    that the new field's default means what was done before it existed.
    """
    canonical = json.dumps(_plain(record), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        kept = (f for f in fields(value) if getattr(value, f.name) != _default(f))
        return {f.name: _plain(getattr(value, f.name)) for f in kept}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return repr(value)  # the shortest text that reads back as the same number
    if value is None or isinstance(value, (str, int, bool)):
        return value
    raise ValueError(f"a record holds plain values only; got {type(value).__name__}: {value!r}")


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default
