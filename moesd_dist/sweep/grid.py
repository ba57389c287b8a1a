"""A grid of points: combinations of the axes' values, in a fixed order, without those left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from itertools import product
from typing import Any

from moesd_dist.records import Role, SdSpec, SweepPoint
from moesd_dist.records.serial import field_from_plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Fields of SweepPoint, dotted if nested, that step together; a row has a value of each."""

    names: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """Leaves out the points that have one of the values in each of the fields."""

    wanted: tuple[tuple[str, tuple[Any, ...]], ...]

    def matches(self, point: SweepPoint) -> bool:
        return all(value_of(point, name) in values for name, values in self.wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What the axes make: points with their baselines, and combinations that were left out."""

    points: tuple[SweepPoint, ...]
    left_out: tuple[SweepPoint, ...] = ()
    unused: tuple[int, ...] = ()  # places of the exclusions that no combination matched


def expand(
    base: SweepPoint, axes: Mapping[str, Sequence[Any]], *, control: bool = False
) -> list[SweepPoint]:
    """All points of the product of the axes, each axis a field of SweepPoint, dotted if nested."""
    return list(make_grid(base, [axis(n, axes[n]) for n in axes], control=control).points)


def axis(name: str, values: Sequence[Any]) -> Axis:
    """An ordinary axis: one field."""
    return Axis(names=(name,), rows=tuple((value,) for value in values))


def make_grid(
    base: SweepPoint,
    axes: Sequence[Axis],
    *,
    exclude: Sequence[Exclusion] = (),
    control: bool = False,
) -> Grid:
    """All points of the product of the axes, the last one innermost.

    Every SD point brings its baseline, whatever is excluded. `control` adds a second baseline per
    group, measured as if it were SD (the A/A run). Duplicates are kept once.
    """
    points: dict[SweepPoint, None] = {}
    left_out, used = [], set[int]()
    for point in _combinations(base, axes):
        matching = {place for place, rule in enumerate(exclude) if rule.matches(point)}
        used |= matching
        if matching:
            left_out.append(point)
            continue
        points |= dict.fromkeys(_members(point, control=control))
    unused = tuple(place for place in range(len(exclude)) if place not in used)
    return Grid(points=tuple(points), left_out=tuple(left_out), unused=unused)


def with_field(record: Any, name: str, value: Any) -> Any:
    """A copy with one field changed; `workload.seed` reaches into nested records."""
    head, _, rest = name.partition(".")
    _check_field(record, name)
    if rest:
        return replace(record, **{head: with_field(getattr(record, head), rest, value)})
    return replace(record, **{head: field_from_plain(type(record), head, value)})


def value_of(record: Any, name: str) -> Any:
    """A field's value, dotted names reaching into nested records."""
    for part in name.split("."):
        record = getattr(record, part)
    return record


def _combinations(base: SweepPoint, axes: Sequence[Axis]) -> Iterator[SweepPoint]:
    for rows in product(*(axis.rows for axis in axes)):
        point = base
        for axis, row in zip(axes, rows, strict=True):
            for name, value in zip(axis.names, row, strict=True):
                point = with_field(point, name, value)
        yield point


def _members(point: SweepPoint, *, control: bool) -> Iterator[SweepPoint]:
    yield point.baseline
    if control:
        yield replace(point, gamma=0, sd=SdSpec(), role=Role.control)
    if point.gamma:
        yield replace(point, role=Role.sd)


def _check_field(record: Any, name: str) -> None:
    """ValueError with the nearest name for a field that is not there."""
    head, _, rest = name.partition(".")
    names = [f.name for f in fields(record)]
    if head not in names:
        near = get_close_matches(head, names, n=1) or ["batch_size"]
        raise ValueError(f"no axis {name!r} to sweep; did you mean {near[0]!r}?")
    if rest and not is_dataclass(getattr(record, head)):
        raise ValueError(f"axis {name!r}: {head} has no fields of its own")


def exclusion(base: SweepPoint, wanted: Mapping[str, Sequence[Any]]) -> Exclusion:
    """Its values read as those of an axis are: ValueError for a field or a type that does not fit."""
    read = ((n, tuple(value_of(with_field(base, n, v), n) for v in wanted[n])) for n in wanted)
    return Exclusion(wanted=tuple(read))
