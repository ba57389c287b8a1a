"""Which points are fitted and which are held back, by group: what an honest error is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.moesd.strides import evenly_spaced, grid_order
from moesd_dist.theory.steps.data import StepData

_Indices = npt.NDArray[np.intp]

FOLDS = 5
_FEWEST = 10  # points of a strided subset: what MoESD's ten parameters need


class Kind(StrEnum):
    """What is held back together; the values are words for a table."""

    BASELINES = "baselines at random"  # with all points of each: nothing near them was fitted
    POINTS = "points at random"
    GAMMA = "a whole gamma"
    TOP_K = "a whole top_k"
    RANKS = "a whole number of ranks"
    LARGEST = "the largest batches"
    STRIDED = "all but strided points"

    @property
    def slug(self) -> str:
        """For names that take no spaces."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Indices of the points that are fitted and of those that are predicted; they share none."""

    kind: Kind
    name: str  # such as "gamma 3"
    train: _Indices
    test: _Indices


def all_splits(data: StepData, *, seed: int, folds: int = FOLDS) -> list[Split]:
    """Every kind that the points allow, random ones by the seed."""
    splits = [
        *random_folds(Kind.BASELINES, data.group, folds=folds, seed=seed),
        *random_folds(Kind.POINTS, np.arange(len(data)), folds=folds, seed=seed),
        *each_out(Kind.GAMMA, "gamma", data.gamma),
        *each_out(Kind.TOP_K, "top_k", data.top_k),
        *each_out(Kind.RANKS, "ranks", data.ranks),
        *largest_batches(data),
    ]
    count = max(_FEWEST, len(data) // 4)
    return [*splits, strided_split(data, count)] if count < len(data) else splits


def random_folds(kind: Kind, labels: npt.ArrayLike, *, folds: int, seed: int) -> Iterator[Split]:
    """Labels [points] dealt into folds at random; each fold is held back once."""
    found, of = np.unique(np.asarray(labels), return_inverse=True)
    if found.size < 2:
        return
    count = min(folds, found.size)
    dealt = np.random.default_rng(seed).permutation(np.arange(found.size) % count)[of]
    for fold in range(count):
        yield _held(kind, f"fold {fold + 1}", dealt == fold)


def each_out(kind: Kind, name: str, values: npt.ArrayLike) -> Iterator[Split]:
    """Each of several values [points] held back whole; nothing for a single one."""
    given = np.asarray(values)
    found = np.unique(given)
    for value in found if found.size > 1 else []:
        yield _held(kind, f"{name} {value:g}", given == value)


def largest_batches(data: StepData) -> Iterator[Split]:
    """The top quarter of the distinct batch sizes, at least one: extrapolation."""
    sizes = np.unique(data.batch_size)
    if sizes.size > 1:
        least = sizes[-max(1, sizes.size // 4)]
        yield _held(Kind.LARGEST, f"B >= {least:g}", data.batch_size >= least)


def strided_split(data: StepData, count: int) -> Split:
    """`count` points evenly spaced in the order (top_k, gamma, batch size) are fitted.

    Raises ValueError unless count lies in 1..points.
    """
    order = grid_order(data.batch_size, data.gamma, data.top_k)
    kept = np.zeros(len(data), dtype=bool)
    kept[order[evenly_spaced(count, len(data))]] = True
    return _held(Kind.STRIDED, f"{count} strided points fitted", ~kept)


def _held(kind: Kind, name: str, held: npt.NDArray[np.bool_]) -> Split:
    return Split(kind=kind, name=name, train=np.flatnonzero(~held), test=np.flatnonzero(held))
