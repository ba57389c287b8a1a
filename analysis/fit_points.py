"""Which measurements are fitted together: chosen, checked, and split where a fit must not mix them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.fit_settings import Each, FitConf
from analysis.load import SweepRun, load_run
from analysis.settings import names_of
from moesd_dist.records import Measurement, Role
from moesd_dist.sweep.observations import step_data
from moesd_dist.sweep.statistics import paired_interval, speedup
from moesd_dist.theory.step_data import StepData
from moesd_dist.workloads.acceptance_points import Setting, setting_of

_KEYS: Mapping[Each, Callable[[Measurement], Any]] = {
    Each.all: lambda _: "",
    Each.devices: lambda m: (m.point.hardware, m.host, m.device_name, m.point.threads),
    Each.layouts: lambda m: m.point.layout,
    Each.targets: lambda m: m.point.target.anonymous,
    Each.drafts: lambda m: m.point.sd.draft.anonymous if m.point.sd.draft else m.point.sd.method,
    Each.engines: lambda m: m.point.engine,
}


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
        _sample(text, members, [c for c in controls if _KEYS[conf.each](c) == key], labels, runs)
        for text, (key, members) in zip(texts, parts.items(), strict=True)
    ]


def chosen(measured: Sequence[Measurement], where: Mapping[str, str]) -> list[Measurement]:
    """Those with these values; of a point that several sweeps hold, the one of the sweep named last."""
    newest = {m.point.point_id: m for m in measured}
    return [m for m in newest.values() if _matches(m, where)]


def _sample(
    name: str,
    members: list[Measurement],
    controls: list[Measurement],
    labels: tuple[Setting, ...],
    runs: tuple[SweepRun, ...],
) -> Sample:
    _check_sources(members)
    for m in members:
        _check_pairs(m)
    return Sample(
        name=name,
        measured=members,
        controls=controls,
        data=step_data(members),
        settings=np.array([labels.index(setting_of(m)) for m in members], dtype=np.intp),
        setting_names=labels,
        sweeps=runs,
    )


def _is_sd(m: Measurement) -> bool:
    return m.point.role is Role.sd and m.point.gamma > 0


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
    """A baseline or control has no draft and no gamma, and fits any."""
    point = m.point
    values = dict(setting_of(m))
    values |= {n: str(getattr(point, n)) for n in ("batch_size", "gamma", "hardware", "threads")}
    values["host"] = m.host
    asked = where if _is_sd(m) else {n: v for n, v in where.items() if n not in _OF_SD}
    return all(_plain(w) in (_plain(values[n]), values[n].split(" ")[0]) for n, w in asked.items())


_OF_SD = ("draft", "gamma", "acceptance")


def _plain(text: str) -> str:
    """1.0 and 1 are one temperature."""
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def _check_sources(members: Sequence[Measurement]) -> None:
    simulated = sum(m.point.simulated for m in members)
    if 0 < simulated < len(members):
        raise ValueError(
            f"{simulated} simulated and {len(members) - simulated} measured points cannot be fitted"
            " as one: a formula would be fitted to itself; choose with where.engine=analytic or"
            " another engine"
        )


def _check_pairs(m: Measurement) -> None:
    if not m.repeats or len(m.baseline) != len(m.repeats):
        raise ValueError(
            f"a speedup needs a baseline for each repeat; B={m.point.batch_size}"
            f" gamma={m.point.gamma} has {len(m.repeats)} repeats and {len(m.baseline)} of its"
            f" baseline; measure it again, or leave it out with where.batch_size or where.gamma"
        )
