"""Data parallelism of a MoE on a CPU.

Symptom: `NotImplementedError` in the first forward with `data_parallel_size` > 1. Cause: MoE layers
exchange tokens with `all_gatherv` and `reduce_scatterv`, and CpuCommunicator has neither. No
upstream issue known; see also https://github.com/vllm-project/vllm/issues/57837.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def padded(rows: Tensor, count: int) -> Tensor:
    """`count` rows, zeros at the end: gloo gathers equal shapes only."""
    missing = rows.new_zeros((count - len(rows), *rows.shape[1:]))
    return torch.cat([rows, missing]).contiguous()


def all_gatherv(
    self: Any, input_: Tensor | list[Tensor], dim: int = 0, sizes: Sequence[int] | None = None
) -> Tensor | list[Tensor]:
    """Every rank's rows in the order of ranks; `sizes` are rows a rank, equal if not given."""
    if dim != 0:
        raise NotImplementedError(f"all_gatherv gathers along dim 0, as on a GPU, not {dim}")
    if not isinstance(input_, Tensor):
        return [gathered(self, tensor, sizes) for tensor in input_]
    return gathered(self, input_, sizes)


def gathered(self: Any, rows: Tensor, sizes: Sequence[int] | None) -> Tensor:
    counts = list(sizes) if sizes is not None else [len(rows)] * self.world_size
    check(rows, counts[self.rank_in_group])
    mine = padded(rows, max(counts))
    everyone = [torch.empty_like(mine) for _ in counts]
    dist.all_gather(everyone, mine, group=self.device_group)
    return torch.cat([part[:count] for part, count in zip(everyone, counts, strict=True)])


def reduce_scatterv(
    self: Any, input_: Tensor, dim: int = -1, sizes: Sequence[int] | None = None
) -> Tensor:
    """This rank's rows of the sum over ranks: summed whole, then cut (gloo scatters no unequal parts)."""
    if dim % input_.dim() != 0:
        raise NotImplementedError(f"reduce_scatterv cuts along dim 0, the only use, not {dim}")
    even = [len(input_) // self.world_size] * self.world_size
    counts = list(sizes) if sizes is not None else even
    check(input_, sum(counts))
    total = input_.contiguous().clone()
    dist.all_reduce(total, group=self.device_group)
    first = sum(counts[: self.rank_in_group])
    return total[first : first + counts[self.rank_in_group]]


def check(rows: Tensor, expected: int) -> None:
    """Ranks that disagree on sizes would wait for each other for ever."""
    if len(rows) != expected:
        raise ValueError(
            f"sizes ask for {expected} rows, the tensor has {len(rows)}; ranks disagree"
        )


def apply() -> None:
    from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator

    CpuCommunicator.all_gatherv = all_gatherv
    CpuCommunicator.reduce_scatterv = reduce_scatterv
