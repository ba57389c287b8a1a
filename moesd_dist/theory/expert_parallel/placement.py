"""Which rank holds which expert: physical slots, each with a logical expert in it or none."""

# Physical slot p belongs to rank p // slots_per_rank. Where the experts do not divide evenly, the
# last slots of some ranks stay empty (EMPTY): padding, so that all ranks have as many slots.

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

EMPTY = -1

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placement:
    """`physical_to_logical` is int64 [MoE layer, slot], slots of a rank side by side.

    Raises ValueError unless the ranks divide the slots and every logical expert of a layer has one.
    """

    ranks: int
    num_experts: int
    physical_to_logical: _Ints

    def __post_init__(self) -> None:
        slots = self.physical_to_logical.shape[1]
        if self.ranks < 1 or slots % self.ranks:
            raise ValueError(f"{self.ranks} ranks do not divide {slots} physical experts")
        for layer, row in enumerate(self.physical_to_logical):
            missing = np.setdiff1d(np.arange(self.num_experts), row)
            if len(missing):
                raise ValueError(f"layer {layer} has no place for expert {missing[0]}")

    @property
    def slots_per_rank(self) -> int:
        return int(self.physical_to_logical.shape[1]) // self.ranks

    @property
    def digest(self) -> str:
        """16 hex digits: equal for equal placements."""
        return hashlib.sha256(self.physical_to_logical.astype("<i8").tobytes()).hexdigest()[:16]

    def of_rank(self, rank: int) -> _Ints:
        """Logical experts of one rank, int64 [layer, slot], EMPTY where there is none."""
        first = rank * self.slots_per_rank
        return self.physical_to_logical[:, first : first + self.slots_per_rank]

    def rank_loads(self, loads: npt.ArrayLike) -> _Floats:
        """Load of each rank, [layer, rank], from loads of logical experts [layer, expert].

        An expert's load is shared evenly by its replicas.
        """
        loads = np.asarray(loads, dtype=np.float64)
        found = np.zeros((len(self.physical_to_logical), self.ranks))
        for layer, row in enumerate(self.physical_to_logical):
            filled = np.flatnonzero(row != EMPTY)
            replicas = np.bincount(row[filled], minlength=self.num_experts)
            share = loads[layer, row[filled]] / replicas[row[filled]]
            np.add.at(found[layer], filled // self.slots_per_rank, share)
        return found


def linear(num_experts: int, *, ranks: int, layers: int = 1) -> Placement:
    """Consecutive experts side by side: rank 0 has the first ones."""
    return _repeated(
        _padded(np.arange(num_experts), num_experts, ranks), num_experts, ranks, layers
    )


def round_robin(num_experts: int, *, ranks: int, layers: int = 1) -> Placement:
    """Expert e on rank e mod ranks, as one deals cards."""
    order = np.concatenate([np.arange(first, num_experts, ranks) for first in range(ranks)])
    return _repeated(_padded(order, num_experts, ranks), num_experts, ranks, layers)


def _padded(order: _Ints, num_experts: int, ranks: int) -> _Ints:
    """[ranks x slots]: the first ranks hold one more where the experts do not divide evenly."""
    slots = -(-num_experts // ranks)
    counts = [num_experts // ranks + (r < num_experts % ranks) for r in range(ranks)]
    row = np.full((ranks, slots), EMPTY, dtype=np.int64)
    for rank, part in enumerate(np.split(order, np.cumsum(counts)[:-1])):
        row[rank, : len(part)] = part
    return row.reshape(-1)


def _repeated(row: _Ints, num_experts: int, ranks: int, layers: int) -> Placement:
    return Placement(
        ranks=ranks, num_experts=num_experts, physical_to_logical=np.tile(row, (layers, 1))
    )
