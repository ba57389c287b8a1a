"""Records to plain values that JSON can carry, and back without loss."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
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
    kind = type(record)
    if kind in _SCALARS:  # first: an expert load holds thousands
        return record
    if kind is tuple or kind is list:
        return [to_plain(item) for item in record]
    if kind is float:
        return record if math.isfinite(record) else str(record)  # JSON has no NaN
    if is_dataclass(kind):
        return {**_kind_entry(kind), **{n: to_plain(getattr(record, n)) for n in _names(kind)}}
    return _rare_to_plain(record)


def _rare_to_plain(record: Any) -> Any:
    if isinstance(record, Enum):
        return record.value
    if isinstance(record, Mapping):
        return {str(key): to_plain(value) for key, value in record.items()}
    if isinstance(record, (tuple, list)):
        return [to_plain(item) for item in record]
    if isinstance(record, float):
        return to_plain(float(record))
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
    kinds = _kinds_of(cls)
    if kinds and (_KIND_KEY in plain):
        plain = {key: value for key, value in plain.items() if (key, value) not in kinds}
    hints, keys = _hints(cls), plain.keys()
    if not (keys <= hints.keys() and _required(cls) <= keys):
        _refuse_keys(cls, set(keys), set(hints))
    return {
        key: value
        if type(value) in _SCALARS and hints[key] is type(value)
        else _value(hints[key], value, key)
        for key, value in plain.items()
    }


def _value(hint: Any, plain: Any, key: str) -> Any:
    return _reader(hint)(plain, key)


@cache
def _reader(hint: Any) -> Callable[[Any, str], Any]:
    if is_dataclass(hint) and isinstance(hint, type):
        return lambda plain, _: from_plain(hint, plain)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return lambda plain, _: hint(plain)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = _reader(_not_none(hint))
        return lambda plain, key: None if plain is None else inner(plain, key)
    if origin is tuple:
        return lambda plain, key: _tuple(arguments, _checked(list, plain, key), key)
    if origin is dict:
        return lambda plain, key: dict(_checked(Mapping, plain, key))
    if hint is float:
        return _float
    return lambda plain, key: _checked(hint, plain, key)


def _float(plain: Any, key: str) -> Any:
    """An int stays an int: point ids tell 1 from 1.0."""
    return float(plain) if isinstance(plain, str) else _checked((int, float), plain, key)


def _tuple(hints: tuple[Any, ...], plain: list[Any], key: str) -> tuple[Any, ...]:
    if hints[-1] is Ellipsis:
        if hints[0] in _SCALARS and all(type(item) is hints[0] for item in plain):
            return tuple(plain)
        read = _reader(hints[0])
        return tuple([read(item, key) for item in plain])
    return tuple(_value(hint, item, key) for hint, item in zip(hints, plain, strict=True))


def _checked(expected: Any, plain: Any, key: str) -> Any:
    if not isinstance(plain, expected):
        raise ValueError(f"{key} cannot be read from {plain!r}: the wrong type of value")
    return plain


def _refuse_keys(cls: type, given: set[str], known: set[str]) -> None:
    if unknown := sorted(given - known):
        raise ValueError(
            f"{cls.__name__} has no {', '.join(map(repr, unknown))}: "
            "written by a later version; read it with that version"
        )
    missing = sorted(_required(cls) - given)
    raise ValueError(f"{cls.__name__} needs {', '.join(map(repr, missing))}; got {sorted(given)}")


@cache
def _required(cls: type) -> frozenset[str]:
    return frozenset(
        f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING
    )


@cache
def _kind_entry(cls: type) -> dict[str, Any]:
    return dict(_kinds_of(cls))


@cache
def _names(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls))


@cache
def _kinds_of(cls: type) -> list[tuple[str, Any]]:
    return [(_KIND_KEY, kind) for kind, outcome in KINDS.items() if cls is outcome]


def _not_none(hint: Any) -> Any:
    """The T of `T | None`."""
    return next(arg for arg in get_args(hint) if arg is not types.NoneType)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)
