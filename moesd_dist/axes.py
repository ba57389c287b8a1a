"""Sweep settings become axes: which fields vary, which step together, what is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from moesd_dist.config import SweepConf
from moesd_dist.records import LayoutSpec, SweepPoint
from moesd_dist.records.serial import to_plain
from moesd_dist.sweep.grid import Axis, Exclusion, axis, exclusion

_OWN = ("workload", "top_k", "temperature", "batch_size", "gamma")  # keys of SweepConf
_INNERMOST = ("batch_size", "gamma")  # so that curves fill from the left
_ALWAYS_SET = ("temperature", "batch_size", "gamma")  # one value is no axis


def axes_of(sweep: SweepConf) -> list[Axis]:
    """Ordinary and zipped axes; ValueError for a field that two of them want."""
    together = [zipped_axis(mapping) for mapping in sweep.zipped]
    taken: set[str] = set()
    for made in together:
        if twice := taken & set(made.names):
            raise ValueError(f"sweep.zipped has {min(twice)} in two mappings; keep it in one")
        taken |= set(made.names)
    alone = [axis(n, values) for n, values in _ordinary(sweep, taken).items()]
    return sorted([*alone, *together], key=_depth)


def ranks_axis(ranks: Sequence[int], layout: LayoutSpec) -> Axis:
    """Whole layouts: so many data-parallel ranks that share the experts, otherwise as given.

    A single rank has nothing to exchange and nothing to place. Others are spread over the nodes of
    the given layout, or over as many of these as hold equal numbers of them.
    """
    return Axis(names=("layout",), rows=tuple((to_plain(_over(n, layout)),) for n in ranks))


def _over(ranks: int, layout: LayoutSpec) -> LayoutSpec:
    if ranks == 1:
        return LayoutSpec(tp_size=layout.tp_size)
    nodes = max(n for n in range(1, layout.nodes + 1) if ranks % n == 0)
    return replace(layout, dp_size=ranks, ep_size=ranks * layout.tp_size, nodes=nodes)


def zipped_axis(mapping: Any) -> Axis:
    """One axis of the fields of a mapping; their lists have equal lengths."""
    if not isinstance(mapping, Mapping) or not mapping:
        raise ValueError(
            f"sweep.zipped is a list of mappings, got {mapping!r}; "
            "use [{batch_size: [1, 8], gamma: [4, 2]}]"
        )
    for name, values in mapping.items():
        _check_list(f"sweep.zipped.{name}", values)
    lengths = {name: len(values) for name, values in mapping.items()}
    if len(set(lengths.values())) > 1 or not all(lengths.values()):
        found = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(
            f"zipped axes step together, so they have equally many values: {found}; "
            "give one list a field, all of the same length"
        )
    names = tuple(map(field_of, mapping))
    return Axis(names=names, rows=tuple(zip(*mapping.values(), strict=True)))


def exclusions_of(sweep: SweepConf, base: SweepPoint) -> list[Exclusion]:
    """A value alone stands for a list of one."""
    made = []
    for mapping in sweep.exclude:
        if not isinstance(mapping, Mapping) or not mapping:
            raise ValueError(
                f"sweep.exclude is a list of mappings, got {mapping!r}; "
                "use [{batch_size: [32, 64], gamma: 4}]"
            )
        wanted = {
            field_of(n): values if isinstance(values, list) else [values]
            for n, values in mapping.items()
        }
        made.append(exclusion(base, wanted))
    return made


def field_of(name: str) -> str:
    """The point's field that a key of the sweep is about."""
    return "workload.name" if name == "workload" else name


def _ordinary(sweep: SweepConf, zipped: set[str]) -> dict[str, Sequence[Any]]:
    """The axes that are no part of a zipped one, the batch size and gamma last."""
    own = {field_of(n): n for n in _OWN}
    if clash := own.keys() & sweep.axes.keys():
        raise ValueError(f"axis {min(clash)} has a key of its own: sweep.{own[min(clash)]}")
    named = {field_of(n): getattr(sweep, n) for n in _OWN}
    last = {name: named.pop(name) for name in _INNERMOST}
    axes = {n: values for n, values in named.items() if values} | sweep.axes | last
    for name, values in axes.items():
        _check_list(f"sweep axis {name}", values)
        if name in zipped and (name not in _ALWAYS_SET or len(values) > 1):
            way = f"give sweep.{name}=[{values[0]}]" if name in _ALWAYS_SET else "take one away"
            raise ValueError(
                f"{name} is zipped and has {len(values)} values of its own, {values}; {way}"
            )
    return {name: values for name, values in axes.items() if name not in zipped}


def _depth(axis: Axis) -> int:
    """How far inside the product: a zipped axis as far as its innermost field."""
    return max(_INNERMOST.index(n) + 1 if n in _INNERMOST else 0 for n in axis.names)


def _check_list(what: str, values: Any) -> None:
    if not isinstance(values, list):
        raise ValueError(f"{what} must be a list, got {values!r}; did you mean [{values}]?")
