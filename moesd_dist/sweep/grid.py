"""A grid of points: every combination of the axes' values, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from itertools import product
from typing import Any

from moesd_dist.records import Role, SdSpec, SweepPoint
from moesd_dist.records.serial import field_from_plain


def expand(
    base: SweepPoint, axes: Mapping[str, Sequence[Any]], *, control: bool = False
) -> list[SweepPoint]:
    """All points of the product of the axes, each axis a field of SweepPoint, dotted if nested.

    Every SD point brings its baseline. `control` adds a second baseline per group, measured as if
    it were SD (the A/A run). Duplicates are kept once.
    """
    points: dict[str, SweepPoint] = {}
    for combination in product(*axes.values()):
        point = base
        for name, value in zip(axes, combination, strict=True):
            point = with_field(point, name, value)
        for member in _members(point, control=control):
            points.setdefault(member.point_id, member)
    return list(points.values())


def _members(point: SweepPoint, *, control: bool) -> Iterator[SweepPoint]:
    yield point.baseline
    if control:
        yield replace(point, gamma=0, sd=SdSpec(), role=Role.control)
    if point.gamma:
        yield replace(point, role=Role.sd)


def with_field(record: Any, name: str, value: Any) -> Any:
    """A copy with one field changed; `workload.seed` reaches into nested records."""
    head, _, rest = name.partition(".")
    names = [f.name for f in fields(record)]
    if head not in names:
        near = get_close_matches(head, names, n=1) or ["batch_size"]
        raise ValueError(f"no axis {name!r} to sweep; did you mean {near[0]!r}?")
    if rest:
        inner = getattr(record, head)
        if not is_dataclass(inner):
            raise ValueError(f"axis {name!r}: {head} has no fields of its own")
        return replace(record, **{head: with_field(inner, rest, value)})
    return replace(record, **{head: field_from_plain(type(record), head, value)})
