"""A name for a record that every machine and every later version computes alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar

_REMEMBERED = 32768  # objects: points, and the parts that many of them share

R = TypeVar("R")
T = TypeVar("T")


def identity(record: Any) -> str:
    """16 hex digits over the fields that differ from their defaults.

    Leaving defaults out keeps old identities valid when a later version adds a field, provided
    that the new field's default means what was done before it existed.
    """
    plain = _differing(record) if is_dataclass(record) else _plain(record)
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def by_object(function: Callable[[R], T]) -> Callable[[R], T]:
    """Remembers what it found for an object, not for its equals: 1 and 1.0 have their own identities.

    For frozen records only, and for functions whose results nobody changes.
    """
    known: dict[int, tuple[R, T]] = {}

    def remembered(record: R) -> T:
        found = known.get(id(record))
        if found is None or found[0] is not record:
            if len(known) >= _REMEMBERED:
                known.clear()
            found = known[id(record)] = (record, function(record))
        return found[1]

    return remembered


def _plain(value: Any) -> Any:
    if value is None or type(value) in (str, int, bool):
        return value
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return _plain_record(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return repr(value)  # the shortest text that reads back as the same number
    if isinstance(value, (str, int)):
        return value
    raise ValueError(f"a record holds plain values only; got {type(value).__name__}: {value!r}")


@by_object
def _plain_record(record: Any) -> dict[str, Any]:
    return _differing(record)


def _differing(record: Any) -> dict[str, Any]:
    kind: type = type(record)
    values = ((name, getattr(record, name), default) for name, default in _defaults(kind))
    return {name: _plain(value) for name, value, default in values if value != default}


@cache
def _defaults(cls: type) -> tuple[tuple[str, Any], ...]:
    return tuple((f.name, _default(f)) for f in fields(cls))


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default
