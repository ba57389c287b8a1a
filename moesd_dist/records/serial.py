"""Records to plain values that JSON can carry, and back without loss."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from moesd_dist.records.measurement import Measurement
from moesd_dist.records.outcome import Failed, Infeasible, Outcome
from moesd_dist.records.point import SweepPoint

R = TypeVar("R")

KINDS: Mapping[str, type[Measurement] | type[Infeasible] | type[Failed]] = {
    "measured": Measurement,
    "infeasible": Infeasible,
    "failed": Failed,
}
_SCALARS = frozenset({int, str, bool, types.NoneType})
_KIND_KEY = "outcome"  # tells the three outcomes apart


def kind_of(outcome: Outcome) -> str:
    """`measured`, `infeasible` or `failed`."""
    return next(kind for kind, cls in KINDS.items() if type(outcome) is cls)


def to_plain(record: Any) -> Any:
    """Dicts, lists, text, numbers; an outcome also says which one it is, under `outcome`."""
    if type(record) in _SCALARS:  # first: an expert load holds thousands
        return record
    if isinstance(record, Enum):
        return record.value
    if is_dataclass(record) and not isinstance(record, type):
        return _kind_entry(record) | {
            f.name: to_plain(getattr(record, f.name)) for f in fields(record)
        }
    if isinstance(record, Mapping):
        return {str(key): to_plain(value) for key, value in record.items()}
    if isinstance(record, (tuple, list)):
        return [to_plain(item) for item in record]
    if isinstance(record, float):
        return float(record) if math.isfinite(record) else str(float(record))  # JSON has no NaN
    raise ValueError(f"a record holds plain values only; got {type(record).__name__}: {record!r}")


def point_from_plain(plain: Any) -> SweepPoint:
    return from_plain(SweepPoint, plain)


def measurement_from_plain(plain: Any) -> Measurement:
    outcome = outcome_from_plain(plain)
    if isinstance(outcome, Measurement):
        return outcome
    raise ValueError(f"a measurement was expected; this outcome is {kind_of(outcome)!r}")


def outcome_from_plain(plain: Any) -> Outcome:
    kind = str(plain.get(_KIND_KEY)) if isinstance(plain, Mapping) else repr(plain)
    if kind not in KINDS:
        raise ValueError(f"an outcome is one of {', '.join(KINDS)}; got {kind!r}")
    return from_plain(KINDS[kind], plain)


def from_plain(cls: type[R], plain: Any) -> R:
    """Rebuilds a record: missing keys take their defaults, unknown ones are refused."""
    return cls(**_arguments(cls, plain))


def field_from_plain(cls: type, name: str, plain: Any) -> Any:
    """One field's value from what a file or a command line gives; ValueError if it does not fit."""
    return _value(_hints(cls)[name], plain, name)


def _arguments(cls: type, plain: Any) -> dict[str, Any]:
    if not isinstance(plain, Mapping):
        raise ValueError(f"{cls.__name__} is read from a mapping; got {plain!r}")
    plain = {key: value for key, value in plain.items() if (key, value) not in _kinds_of(cls)}
    hints = _hints(cls)
    _check_keys(cls, set(plain), set(hints))
    return {key: _value(hints[key], value, key) for key, value in plain.items()}


def _value(hint: Any, plain: Any, key: str) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        return from_plain(hint, plain)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(plain)
    if get_origin(hint) in (Union, types.UnionType):
        return None if plain is None else _value(_not_none(hint), plain, key)
    if get_origin(hint) is tuple:
        return _tuple(get_args(hint), _checked(list, plain, key), key)
    if get_origin(hint) is dict:
        return dict(_checked(Mapping, plain, key))
    if hint is float:
        # An int stays an int: point ids tell 1 from 1.0.
        return float(plain) if isinstance(plain, str) else _checked((int, float), plain, key)
    return _checked(hint, plain, key)


def _tuple(hints: tuple[Any, ...], plain: list[Any], key: str) -> tuple[Any, ...]:
    if hints[-1] is Ellipsis:
        return tuple(_value(hints[0], item, key) for item in plain)
    return tuple(_value(hint, item, key) for hint, item in zip(hints, plain, strict=True))


def _checked(expected: Any, plain: Any, key: str) -> Any:
    if not isinstance(plain, expected):
        raise ValueError(f"{key} cannot be read from {plain!r}: the wrong type of value")
    return plain


def _check_keys(cls: type, given: set[str], known: set[str]) -> None:
    if unknown := sorted(given - known):
        raise ValueError(
            f"{cls.__name__} has no {', '.join(map(repr, unknown))}: "
            "written by a later version; read it with that version"
        )
    if missing := sorted(_required(cls) - given):
        raise ValueError(
            f"{cls.__name__} needs {', '.join(map(repr, missing))}; got {sorted(given)}"
        )


def _required(cls: type) -> set[str]:
    return {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}


def _kind_entry(record: Any) -> dict[str, Any]:
    return dict(_kinds_of(type(record)))


def _kinds_of(cls: type) -> list[tuple[str, Any]]:
    return [(_KIND_KEY, kind) for kind, outcome in KINDS.items() if cls is outcome]


def _not_none(hint: Any) -> Any:
    """The T of `T | None`."""
    return next(arg for arg in get_args(hint) if arg is not types.NoneType)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)
