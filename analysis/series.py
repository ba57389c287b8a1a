"""Outcomes sorted by what varies in a sweep besides batch size and gamma."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

from moesd_dist.records import Measurement, Outcome, Role, SweepPoint
from moesd_dist.records.identity import by_object
from moesd_dist.records.serial import to_plain

Setting = tuple[tuple[str, str], ...]
"""Axis names with their values as text, such as (("top_k", "4"), ("temperature", "1"))."""

T = TypeVar("T", bound=Outcome)

_ALWAYS = ("layout.ep_size", "workload.name", "temperature", "top_k")  # shown whenever they vary
_NEVER = ("batch_size", "gamma", "role", "workload.path", "layout.loads_path")


def axes(outcomes: Sequence[Outcome]) -> list[str]:
    """Fields of the points, dotted, that tell the settings of a sweep apart.

    An axis that only repeats what another says is left out: two targets differ in name and size,
    and the name is enough. Baselines have no SD settings, so SD points decide where there are any.
    """
    points = [o.point for o in outcomes if o.point.gamma] or [o.point for o in outcomes]
    leaves = list({id(found): found for found in map(_leaves, points)}.values())  # few differ
    names = list(dict.fromkeys([*_ALWAYS, *(name for found in leaves for name in found)]))
    kept: list[str] = []
    for name in names:
        gain = _distinct(leaves, [*kept, name]) > _distinct(leaves, kept)
        if gain or (name in _ALWAYS and _distinct(leaves, [name]) > 1):
            kept.append(name)
    return kept


def setting(point: SweepPoint, names: Sequence[str]) -> Setting:
    """The point's values of these axes; a baseline has none of the SD axes."""
    leaves = _leaves(point)
    kept = [name for name in names if point.gamma or not name.startswith("sd.")]
    return tuple((label(name), _text(name, leaves.get(name))) for name in kept)


def label(axis: str) -> str:
    """`workload.name` is `workload`, `sd.draft.name` is `draft`, `layout.ep_size` is `ep_size`."""
    own = axis.removeprefix("sd.").removeprefix("layout.")
    return own.removesuffix(".name").replace(".", "_")


def by_setting(outcomes: Sequence[T]) -> dict[Setting, list[T]]:
    """In the order of the sweep; the empty setting alone if nothing else varies."""
    names, found = axes(outcomes), dict[Setting, list[T]]()
    for outcome in outcomes:
        found.setdefault(setting(outcome.point, names), []).append(outcome)
    return found


def by_gamma(measurements: Sequence[Measurement]) -> dict[int, list[Measurement]]:
    """SD measurements alone, each gamma's from the smallest batch to the largest."""
    sd = [m for m in measurements if m.point.role is Role.sd and m.point.gamma]
    gammas = sorted({m.point.gamma for m in sd})
    return {g: by_batch([m for m in sd if m.point.gamma == g]) for g in gammas}


def by_batch(measurements: Sequence[Measurement]) -> list[Measurement]:
    return sorted(measurements, key=lambda m: m.point.batch_size)


def measured(outcomes: Sequence[Outcome]) -> list[Measurement]:
    return [outcome for outcome in outcomes if isinstance(outcome, Measurement)]


def timed(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Those whose seconds mean something."""
    return [m for m in measurements if m.timed]


def of_role(outcomes: Sequence[T], role: Role) -> list[T]:
    return [outcome for outcome in outcomes if outcome.point.role is role]


def text_of(found: Setting) -> str:
    """Such as `top_k 4, temperature 1`; empty if nothing varies."""
    return ", ".join(f"{name} {value}" for name, value in found)


@by_object
def _leaves(point: SweepPoint) -> Mapping[str, Any]:
    """The same object for points that differ in nothing but batch size, gamma and role."""
    return _leaves_of(replace(point, batch_size=1, gamma=min(point.gamma, 1), role=Role.sd))


@lru_cache(maxsize=4096)
def _leaves_of(point: SweepPoint) -> Mapping[str, Any]:
    pairs = _flat("", to_plain(point))
    kept = {name: value for name, value in pairs if name not in _NEVER}
    return {n: v for n, v in kept.items() if point.gamma or not n.startswith("sd.")}


def _flat(prefix: str, plain: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(plain, Mapping):
        yield prefix, plain
        return
    for name, value in plain.items():
        yield from _flat(f"{prefix}.{name}" if prefix else name, value)


def _distinct(leaves: Sequence[Mapping[str, Any]], names: Sequence[str]) -> int:
    return len({tuple(repr(found.get(name)) for name in names) for found in leaves})


def _text(axis: str, value: Any) -> str:
    if value is None:
        return "model" if axis == "top_k" else "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ",".join(_text(axis, item) for item in value) or "none"
    return str(value) or ("default" if axis.startswith("layout.") else "")
