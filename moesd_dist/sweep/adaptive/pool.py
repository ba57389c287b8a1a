"""The points that an adaptive sweep may measure, as the arrays that its choice is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moesd_dist.records import Role, SweepPoint
from moesd_dist.theory.choices.design import log_linear_start

_Floats = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]
_Bools = npt.NDArray[np.bool_]

_SETTING_WEIGHT = 4.0  # more than all other terms together: every setting is begun with
_CURVE_WEIGHT = 0.5  # the middle comes after the ends


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """SD points; arrays are [points]."""

    points: tuple[SweepPoint, ...]
    batch_size: _Floats
    gamma: _Floats
    top_k: _Floats  # 0 for a dense target
    group: _Indices  # equal ones share a baseline
    setting: _Indices  # equal ones share their acceptance: they differ in batch size and gamma only
    tokens: _Floats  # that measuring a point writes, over all its repeats

    def __len__(self) -> int:
        return len(self.points)

    @property
    def settings(self) -> int:
        return int(self.setting.max()) + 1


def pool_of(points: Sequence[SweepPoint], *, own_top_k: int) -> Pool:
    """The SD points among those of a grid; `own_top_k` is the target's where a point names none.

    Raises ValueError if there are none, if all have one batch size, or if one fit cannot hold them.
    """
    members = tuple(p for p in points if p.role is Role.sd and p.gamma)
    _check(members, points)
    batch = np.array([float(p.batch_size) for p in members])
    return Pool(
        points=members,
        batch_size=batch,
        gamma=np.array([float(p.gamma) for p in members]),
        top_k=np.array([float(p.top_k or own_top_k) for p in members]),
        group=_labels([p.baseline for p in members]),
        setting=_labels([replace(p, batch_size=1, gamma=1) for p in members]),
        tokens=np.array([_tokens(p) for p in members]),
    )


def fill(pool: Pool, measured: _Bools, candidates: _Bools, count: int) -> list[int]:
    """The next points while there is too little to fit: far apart, every setting among them."""
    size = _scaled(np.log(pool.batch_size))
    terms = [size, _scaled(pool.gamma), _CURVE_WEIGHT * (1.0 - 2.0 * size**2)]
    settings = _SETTING_WEIGHT * np.eye(pool.settings)[pool.setting]
    columns = np.column_stack([settings, *terms])
    return log_linear_start(columns, measured, candidates, count)


def _scaled(values: _Floats) -> _Floats:
    """-1 at the least, 1 at the largest."""
    low, high = values.min(), values.max()
    return (2.0 * values - low - high) / (high - low) if high > low else np.zeros_like(values)


def _tokens(point: SweepPoint) -> float:
    window = max(point.protocol.window_tokens, point.batch_size * point.workload.output_tokens)
    return float(point.protocol.repeats * window)


def _labels(keys: Sequence[Any]) -> _Indices:
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    return np.array([places[key] for key in keys], dtype=np.intp)


def _check(members: Sequence[SweepPoint], points: Sequence[SweepPoint]) -> None:
    sizes = {p.batch_size for p in members}
    if len(sizes) < 2:
        raise ValueError(
            "an adaptive sweep chooses among SD points of several batch sizes, got "
            f"{len(members)} points of batch sizes {sorted(sizes)}; give sweep.batch_size more values "
            "and sweep.gamma one above 0"
        )
    if any(p.untimed for p in members):
        raise ValueError(
            "an adaptive sweep chooses by time, and these points have none (engine.cpu_fixes under expert "
            "or data parallelism); leave sweep.adaptive away"
        )
    if any(p.role is Role.control for p in points):
        raise ValueError("an adaptive sweep has no control; leave sweep.control out, use +exp=aa")
    if len({_fitted_together(p) for p in members}) > 1:
        raise ValueError(
            "an adaptive sweep is of one target, draft, device and layout, since one fit holds all "
            "of it; run one sweep for each"
        )


def _fitted_together(point: SweepPoint) -> tuple[Any, ...]:
    sd = replace(point.sd, synthetic_acceptance=(), alpha=None)
    machine = (point.hardware, point.device, point.threads, point.layout)
    return (point.engine, point.target, sd, machine, point.experts_implementation, point.simulation)
