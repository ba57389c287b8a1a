"""Which measurements are fitted together: chosen, checked, and split where a fit must not mix them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.fitting.checks import check_pairs, check_sources
from analysis.fitting.settings import Each, FitConf
from analysis.fitting.sharing import check_layouts, is_across_ranks
from analysis.load import SweepRun, load_run
from analysis.recommending.selection import fits
from analysis.settings import names_of
from moesd_dist.records import Measurement, Role, SdSpec
from moesd_dist.sweep.adaptive.observations import step_data
from moesd_dist.sweep.statistics import paired_interval, speedup
from moesd_dist.theory.steps.data import StepData
from moesd_dist.workloads.acceptance_points import Setting, setting_of

_KEYS: Mapping[Each, Callable[[Measurement], Any]] = {
    Each.all: lambda _: "",
    Each.devices: lambda m: (m.point.hardware, m.host, m.device_name, m.point.threads),
    Each.layouts: lambda m: m.point.layout,
    Each.targets: lambda m: m.point.target.anonymous,
    Each.drafts: lambda m: _method(m.point.sd),
    Each.engines: lambda m: m.point.engine,
}

_OF_SD = ("draft", "gamma", "acceptance")  # a baseline or control has none of its own


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """The SD points of one fit, and the A/A controls of the same sweeps."""

    name: str  # what tells it from the other fits; empty if there is one
    measured: list[Measurement]
    controls: list[Measurement]
    data: StepData
    settings: npt.NDArray[np.intp]  # [points] labels of what acceptance depends on
    setting_names: tuple[Setting, ...]  # by label, the same in every sample
    sweeps: tuple[SweepRun, ...]

    @property
    def ranks(self) -> list[int]:
        """The numbers of ranks that are fitted together; one alone for a layout by itself."""
        return sorted({int(n) for n in self.data.ranks})

    def on(self, ranks: float) -> str:
        """For a title that says on how many ranks, where there are several numbers of them."""
        return f", {ranks:g} rank{'s' if ranks > 1 else ''}" if self.ranks != [1] else ""

    @property
    def bars(self) -> npt.NDArray[np.float64]:
        """How far the 95 % interval of each speedup reaches down and up; [2, points], 0 unknown."""
        found = [(speedup(m), paired_interval(m.paired_speedups())) for m in self.measured]
        return np.array([(v - i.low, i.high - v) if i else (0.0, 0.0) for v, i in found]).T


def samples(conf: FitConf) -> list[Sample]:
    """One for each fit, in the order of the sweeps; ValueError for what cannot be fitted."""
    names = names_of(conf.sweep)
    if not names:
        raise ValueError("analysis.fit needs a sweep; give sweep=NAME, or sweep=[ONE,OTHER]")
    runs = tuple(load_run(conf.uri, conf.experiment, name) for name in names)
    found = chosen([m for run in runs for m in run.measured], conf.where.wanted())
    labels = tuple(dict.fromkeys(setting_of(m) for m in found))
    parts = _parts([m for m in found if _is_sd(m)], conf.each)
    if not parts:
        asked = "".join(f" with {name} {value}" for name, value in conf.where.wanted().items())
        raise ValueError(
            f"a fit needs SD points, {' and '.join(names)} has none{asked};"
            f" {'ask for something else' if asked else 'measure some gamma above 0'}"
        )
    controls = [m for m in found if m.point.role is Role.control]
    texts = _names(list(parts), conf.each, parts)
    return [
        _sample(
            text,
            members,
            [c for c in controls if _KEYS[conf.each](c) == key],
            labels,
            runs,
            across_ranks=is_across_ranks(members, conf.each),
        )
        for text, (key, members) in zip(texts, parts.items(), strict=True)
    ]


def chosen(measured: Sequence[Measurement], where: Mapping[str, str]) -> list[Measurement]:
    """Those with these values; of a point that several sweeps hold, the last named one's.

    The same point on two machines is two: an identity does not say where.
    """
    newest = {(m.point.point_id, m.host, m.device_name): m for m in measured}
    return [m for m in newest.values() if _matches(m, where)]


def _sample(
    name: str,
    members: list[Measurement],
    controls: list[Measurement],
    labels: tuple[Setting, ...],
    runs: tuple[SweepRun, ...],
    *,
    across_ranks: bool,
) -> Sample:
    check_sources(members)
    check_pairs(members)
    if across_ranks:
        check_layouts(members)
    return Sample(
        name=name,
        measured=members,
        controls=controls,
        data=step_data(members, across_ranks=across_ranks),
        settings=np.array([labels.index(setting_of(m)) for m in members], dtype=np.intp),
        setting_names=labels,
        sweeps=runs,
    )


def _is_sd(m: Measurement) -> bool:
    return m.point.role is Role.sd and m.point.gamma > 0


def _method(sd: SdSpec) -> SdSpec:
    """What decides a draft's time: not the rates of synthetic acceptance."""
    draft = sd.draft.anonymous if sd.draft else None
    return replace(sd, draft=draft, synthetic_acceptance=())


def _parts(members: Sequence[Measurement], each: Each) -> dict[Any, list[Measurement]]:
    parts: dict[Any, list[Measurement]] = {}
    for m in members:
        parts.setdefault(_KEYS[each](m), []).append(m)
    return parts


def _names(keys: Sequence[Any], each: Each, parts: Mapping[Any, list[Measurement]]) -> list[str]:
    """Short ones, with a number where they would not be unique."""
    if each is Each.all:
        return [""]
    short = [_short(each, parts[key][0]) for key in keys]
    return [s if short.count(s) == 1 else f"{s} {i}" for i, s in enumerate(short, 1)]


def _short(each: Each, m: Measurement) -> str:
    point, layout = m.point, m.point.layout
    match each:
        case Each.devices:
            return f"{point.hardware} on {m.host}".strip()
        case Each.layouts:
            return f"tp{layout.tp_size} dp{layout.dp_size} ep{layout.ep_size}"
        case Each.targets:
            return point.target.name
        case Each.drafts:
            return point.sd.draft.name if point.sd.draft else point.sd.method.value
        case _:
            return point.engine


def _matches(m: Measurement, where: Mapping[str, str]) -> bool:
    """A baseline or control fits any draft and gamma."""
    point = m.point
    values = dict(setting_of(m))
    values |= {n: str(getattr(point, n)) for n in ("batch_size", "gamma", "hardware", "threads")}
    values["host"] = m.host
    asked = where if _is_sd(m) else {n: v for n, v in where.items() if n not in _OF_SD}
    return fits(values, asked)
