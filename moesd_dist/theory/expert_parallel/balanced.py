"""A placement that evens out known loads: replicas for the heaviest experts, then heaviest first."""

# The greedy rule of DeepSeek's EPLB: each redundant expert becomes a replica of the one whose
# replicas have most to do; replicas are then packed, heaviest first, onto the rank that has least
# and a free slot. Unlike there, two replicas of an expert never share a rank.

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.expert_parallel.placement import EMPTY, Placement

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


def balanced(loads: npt.ArrayLike, *, ranks: int, redundant: int = 0) -> Placement:
    """Places experts by their loads [layer, expert]; layers are independent of each other.

    Every rank has ceil((experts + redundant) / ranks) slots; those left over stay empty.
    Raises ValueError for loads that are no counts, and for more replicas than ranks can hold.
    """
    counted = _checked(loads)
    experts = counted.shape[1]
    if ranks < 1:
        raise ValueError(f"ranks must be at least 1, got {ranks}; one rank holds all experts")
    if not 0 <= redundant <= experts * (ranks - 1):
        raise ValueError(
            f"redundant must lie in 0..{experts * (ranks - 1)}, got {redundant}: each of {experts} "
            f"experts fits once on each of {ranks} ranks"
        )
    slots = -(-(experts + redundant) // ranks)
    rows = [_packed(layer, _replicas(layer, ranks, redundant), ranks, slots) for layer in counted]
    return Placement(
        ranks=ranks, num_experts=experts, physical_to_logical=np.array(rows, dtype=np.int64)
    )


def imbalance(placement: Placement, loads: npt.ArrayLike) -> _Floats:
    """Most loaded rank over the mean rank, [layer], at least 1; 1 for a layer without load."""
    found = placement.rank_loads(_checked(loads))
    return _over_mean(found.max(axis=1), found.mean(axis=1))


def ideal(placement: Placement, loads: npt.ArrayLike) -> _Floats:
    """No placement of these replicas has less imbalance, [layer].

    A rank has at least the mean, and the one with the heaviest replica at least that.
    """
    counted = _checked(loads)
    heaviest = [
        np.max(layer / np.bincount(row[row != EMPTY], minlength=placement.num_experts))
        for layer, row in zip(counted, placement.physical_to_logical, strict=True)
    ]
    return _over_mean(np.array(heaviest), counted.sum(axis=1) / placement.ranks)


def _checked(loads: npt.ArrayLike) -> _Floats:
    counted = np.asarray(loads, dtype=np.float64)
    if counted.ndim != 2 or not counted.size:
        raise ValueError(f"loads must be [layer, expert], got shape {counted.shape}")
    if not (np.all(np.isfinite(counted)) and np.all(counted >= 0.0)):
        raise ValueError(f"loads must be finite and >= 0, got {counted.min()}; count tokens")
    return counted


def _over_mean(most: _Floats, mean: _Floats) -> _Floats:
    ratio = np.divide(most, mean, out=np.ones_like(most), where=mean > 0.0)
    return np.maximum(ratio, 1.0)


def _replicas(loads: _Floats, ranks: int, redundant: int) -> _Ints:
    """How many replicas each expert gets, [expert], at most one for each rank."""
    replicas = np.ones(len(loads), dtype=np.int64)
    for _ in range(redundant):
        share = np.where(replicas < ranks, loads / replicas, -1.0)
        replicas[np.argmax(share)] += 1
    return replicas


def _packed(loads: _Floats, replicas: _Ints, ranks: int, slots: int) -> _Ints:
    """Experts by slot, [ranks x slots], the heaviest replicas first."""
    share = loads / replicas
    held: list[list[int]] = [[] for _ in range(ranks)]
    weight = np.zeros(ranks)
    for expert in np.argsort(-share, kind="stable"):
        for _ in range(replicas[expert]):
            rank = _lightest(held, weight, int(expert), slots)
            if rank is None:
                rank = _room(held, weight, int(expert), share, slots)
            held[rank].append(int(expert))
            weight[rank] += share[expert]
    return np.array([part + [EMPTY] * (slots - len(part)) for part in held]).reshape(-1)


def _lightest(held: list[list[int]], weight: _Floats, expert: int, slots: int) -> int | None:
    """The least loaded rank with a free slot and without this expert."""
    free = [r for r, part in enumerate(held) if len(part) < slots and expert not in part]
    return min(free, key=lambda rank: weight[rank]) if free else None


def _room(held: list[list[int]], weight: _Floats, expert: int, share: _Floats, slots: int) -> int:
    """Frees a slot on a rank without this expert: one of its others moves to a rank with room.

    All ranks with room hold this expert, so a full rank without it has another that they lack: it
    has more experts than they do. The one nearest in load moves.
    """
    moves = [
        (abs(share[other] - share[expert]), full, other, room)
        for full, part in enumerate(held)
        if expert not in part
        for room, rest in enumerate(held)
        if len(rest) < slots
        for other in part
        if other not in rest
    ]
    _, full, other, room = min(moves)
    held[full].remove(other)
    held[room].append(other)
    weight[full] -= share[other]
    weight[room] += share[other]
    return full
