"""What measurements on a single rank say to a forecast, as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from moesd_dist.records import Measurement, Repeat
from moesd_dist.sweep.adaptive.observations import step_data
from moesd_dist.sweep.statistics import metrics
from moesd_dist.theory.expert_parallel.parts_fit import Parts
from moesd_dist.theory.steps.data import StepData
from moesd_dist.theory.steps.fit import target_forwards
from moesd_dist.workloads.acceptance_points import by_setting

_Floats = npt.NDArray[np.float64]

Shape = tuple[int, int]
"""Sequences of a forward, and tokens of each."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """Of one model pair, workload and machine. Loads are float64 [repeat, layer, expert]."""

    data: StepData
    parts: Parts
    loads: _Floats
    activated: Mapping[Shape, _Floats]  # mean of one layer and forward, [repeat]
    top_k: int


def evidence_of(single: Sequence[Measurement]) -> Evidence:
    """Raises ValueError for points without experts, loads or timed phases, and for mixed settings.

    Points may be of several hosts of one device: a cluster's nodes are taken to be alike.
    """
    data = step_data([replace(m, host="") for m in single])  # refuses other models and devices
    speculative = [m for m in single if m.point.gamma]
    if len(settings := by_setting(speculative)) > 1:
        raise ValueError(
            f"a forecast is of one top_k, temperature and workload, got {len(settings)} settings; "
            "validate each in a sweep of its own"
        )
    return Evidence(
        data=data,
        parts=_parts(data, speculative),
        loads=_loads(single),
        activated={shape: np.array(found) for shape, found in _activated(single).items()},
        top_k=speculative[0].top_k,
    )


def _parts(data: StepData, points: Sequence[Measurement]) -> Parts:
    """Every baseline's decoding once, then every verification, as `target_forwards` has them."""
    forwards, _ = target_forwards(data)
    found = [metrics(m) for m in points]
    first = [found[i] for i in data.baselines]

    def both(name: str) -> _Floats:
        decoding = [values.get(f"baseline_{name}", 0.0) for values in first]
        return np.array([*decoding, *(values.get(name, 0.0) for values in found)])

    groups = np.concatenate([data.group[data.baselines], data.group])
    return Parts(forwards=forwards, rest_s=both("rest_s"), expert_s=both("expert_s"), groups=groups)


def _loads(single: Sequence[Measurement]) -> _Floats:
    """Summed over points: the popularity of an expert depends on the text, so on the repeat alone."""
    counted = [[r.expert_load for r in m.repeats] for m in single]
    repeats = min(map(len, counted))
    if not repeats or not all(load for loads in counted for load in loads):
        raise ValueError(
            "how popular each expert is was not found in the journal of this machine; continue the "
            "sweep where it began, or start another under a new sweep.name"
        )
    return np.array(
        [sum(np.array(c[r], dtype=np.float64) for c in counted) for r in range(repeats)]
    )


def _activated(single: Sequence[Measurement]) -> dict[Shape, list[float]]:
    """A baseline's own measurement, or where an SD point alone has it, what came along with it."""
    found: dict[Shape, list[float]] = {}
    for m in single:
        found.setdefault((m.point.batch_size, 1), list(_means(m.baseline)))
        found.setdefault((m.point.batch_size, m.point.gamma + 1), list(_means(m.repeats)))
    return {shape: means for shape, means in found.items() if means}


def _means(repeats: Sequence[Repeat]) -> Iterator[float]:
    return (sum(r.experts_seen) / r.layer_forwards for r in repeats if r.layer_forwards)
