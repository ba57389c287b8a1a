"""Rules that a single value keeps; each error says the rule, then the value."""

from __future__ import annotations

from typing import Any

from omegaconf import MISSING


def plain(values: Any) -> list[Any]:
    """A list's values; nothing for a value that is still to be given."""
    return list(values) if isinstance(values, list) else []


def at_least(name: str, value: Any, least: float) -> None:
    if value is not None and not isinstance(value, str) and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must lie between {low} and {high}, got {value}")


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed and value != MISSING:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
