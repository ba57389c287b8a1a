"""Which few points of a measured grid the paper fits on: every n-th in the order (K, gamma, B)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.moesd.points import Points

# MoESD (arXiv 2505.19645) fits 228 = 6 x 2 x 19 points. Its batch sizes follow from the printed
# subsets; K is from a second-hand account, and which two gammas it took is our guess. Neither
# changes which batch sizes a stride meets.
PAPER_TOP_K = (1, 2, 4, 8, 16, 32)
PAPER_GAMMA = (2, 4)
PAPER_BATCH_SIZES = (1, 2, 4, *range(8, 61, 4), 80, 100)
# (top_k, gamma, batch_size), sorted.
PAPER_GRID = tuple(itertools.product(PAPER_TOP_K, PAPER_GAMMA, PAPER_BATCH_SIZES))


def strided(points: Points, *, stride: int) -> npt.NDArray[np.intp]:
    """Indices of every `stride`-th point in the order (top_k, gamma, batch_size), from the first.

    The points may come in any order; equal ones keep theirs.

    Raises ValueError unless stride is at least 1.
    """
    if not stride >= 1:
        raise ValueError(f"stride must be at least 1, got {stride}; 11 takes 21 of 228 points")
    return grid_order(points.batch_size, points.gamma, points.top_k)[::stride]


def grid_order(
    batch_size: npt.ArrayLike, gamma: npt.ArrayLike, top_k: npt.ArrayLike
) -> npt.NDArray[np.intp]:
    """Indices that sort points by (top_k, gamma, batch_size); equal ones keep their order."""
    return np.lexsort(tuple(map(np.asarray, (batch_size, gamma, top_k))))


def evenly_spaced(count: int, total: int) -> npt.NDArray[np.intp]:
    """`count` of the places 0..total - 1, from the first: place floor(i total / count).

    Where total is a whole number of strides it takes what that stride takes; elsewhere it spreads
    counts that no stride gives, such as 21 of 80, over the whole range.

    Raises ValueError unless count lies in 1..total.
    """
    _check_count(count, total)
    return np.asarray(np.arange(count) * total // count, dtype=np.intp)


def stride_for(count: int, total: int) -> int:
    """The largest stride that takes `count` of `total` points: 11 for 21 of 228.

    Raises ValueError if no stride takes exactly that many.
    """
    _check_count(count, total)
    stride = total if count == 1 else math.ceil(total / (count - 1)) - 1
    if taken(stride, total) != count:
        near = taken(stride, total), taken(stride + 1, total)
        raise ValueError(
            f"no stride takes {count} of {total} points, use {near[1]} or {near[0]} of them"
        )
    return stride


def taken(stride: int, total: int) -> int:
    """How many of `total` points a stride takes, the first included."""
    return math.ceil(total / stride)


def _check_count(count: int, total: int) -> None:
    if not 1 <= count <= total:
        raise ValueError(f"count must lie in 1..{total}, got {count}; take fewer or measure more")
