"""The ranks of one engine as a group that hands rows around: gloo between processors, NCCL between GPUs."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from moesd_dist.records import RankPlace

# torch 2.13 renames them; 2.11 has the old names only.
_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_scatter = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


class RankGroup:
    """Collectives of one rank. A peer that is gone, or silent beyond the timeout, is a RuntimeError.

    Sizes are Python lists, since receiving buffers are made for them.
    """

    def __init__(self, rank: int, size: int, device: torch.device, store: Any = None) -> None:
        self.rank, self.size, self.device = rank, size, device
        self._store, self._meetings = store, 0

    def meet(self) -> None:
        """After work of a rank's own that may take minutes longer than another's, such as loading.

        Waits as long as the store does, not as long as a collective.
        """
        self._meetings += 1
        name = f"meeting {self._meetings}"
        self._store.set(f"{name}/{self.rank}", "")
        self._store.wait([f"{name}/{rank}" for rank in range(self.size)])

    def counts(self, out: Tensor) -> Tensor:
        """int64 [ranks]: entry r goes to rank r; returned is what each rank had for this one."""
        received = torch.empty_like(out)
        dist.all_to_all_single(received, out)
        return received

    def all_to_all(self, rows: Tensor, out: list[int], into: list[int]) -> Tensor:
        """Rows [sum(out), width], those for rank 0 first; returns [sum(into), width] likewise."""
        received = rows.new_empty(sum(into), rows.shape[1])
        dist.all_to_all_single(received, rows, into, out)
        return received

    def all_gather(self, rows: Tensor, sizes: list[int]) -> Tensor:
        """Rows of all ranks, [sum(sizes), width]; padded on the wire, where they must be equal."""
        largest = max(sizes)
        padded = rows.new_zeros(largest, rows.shape[1])
        padded[: len(rows)] = rows
        received = rows.new_empty(self.size * largest, rows.shape[1])
        _gather(received, padded)
        parts = received.view(self.size, largest, -1)
        return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])

    def reduce_scatter(self, rows: Tensor, sizes: list[int]) -> Tensor:
        """Sums over ranks of rows [sum(sizes), width]; each rank gets its own of them."""
        largest = max(sizes)
        padded = rows.new_zeros(self.size, largest, rows.shape[1])
        for part, own in zip(padded, rows.split(sizes), strict=True):
            part[: len(own)] = own
        received = rows.new_empty(largest, rows.shape[1])
        _scatter(received, padded.view(self.size * largest, -1))
        return received[: sizes[self.rank]]

    def barrier(self) -> None:
        """No rank returns before all have come."""
        self.total([0])

    def total(self, numbers: Sequence[int]) -> list[int]:
        """Sums over ranks, the same on all of them."""
        values = torch.tensor(numbers, device=self.device)
        dist.all_reduce(values)
        return values.tolist()

    def largest(self, number: int) -> int:
        value = torch.tensor([number], device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return int(value)

    def gather(self, values: Tensor) -> list[Tensor]:
        """One tensor of each rank, of one shape everywhere."""
        found = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(found, values.contiguous())
        return found

    def gather_object(self, value: Any) -> list[Any]:
        """One plain value of each rank."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def close(self) -> None:
        """Without waiting for ranks that may be gone: NCCL's own farewell would."""
        if dist.is_initialized():
            ending = threading.Thread(target=dist.destroy_process_group, daemon=True)
            ending.start()
            ending.join(timeout=5.0)


class Alone(RankGroup):
    """A single rank: nothing to exchange with anybody, and no process group."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(0, 1, device)

    def meet(self) -> None:
        """There is nobody else."""

    def total(self, numbers: Sequence[int]) -> list[int]:
        return list(numbers)

    def largest(self, number: int) -> int:
        return number

    def gather(self, values: Tensor) -> list[Tensor]:
        return [values]

    def gather_object(self, value: Any) -> list[Any]:
        return [value]

    def close(self) -> None:
        """Nothing was opened."""


def join(
    place: RankPlace, device: torch.device, *, timeout_s: float, meet_s: float = 600.0
) -> RankGroup:
    """Meets the other ranks at rank 0's address; RuntimeError if they do not all come in time.

    `meet_s` is for those that still load, `timeout_s` for every collective after that.
    """
    if place.size == 1:
        return Alone(device)
    interface = interface_towards(place.address)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")  # without it, a prefix of names
    store: Any = dist.TCPStore(  # type: ignore[attr-defined]
        place.address,
        place.port,
        place.size,
        is_master=place.rank == 0,
        timeout=timedelta(seconds=meet_s),
        master_listen_fd=_listening(place) if place.rank == 0 else None,
    )
    group = RankGroup(place.rank, place.size, device, store)
    group.meet()
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=place.rank,
        world_size=place.size,
        timeout=timedelta(seconds=timeout_s),
        device_id=_numbered(device),
    )
    return group


def interface_towards(address: str) -> str:
    """The network interface whose address this machine would speak to `address` from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # a datagram socket sends nothing by it
        own = probe.getsockname()[0]
    if own.startswith("127."):
        own = "127.0.0.1"  # every loopback address is on the interface of this one
    for name, addresses in psutil.net_if_addrs().items():
        if any(found.address == own for found in addresses):
            return cast(str, name)
    raise ValueError(f"no network interface of this machine has the address {own}")


def _numbered(device: torch.device) -> torch.device | None:
    """Which GPU the collectives run on; gloo asks for none."""
    if device.type != "cuda":
        return None
    return torch.device("cuda", torch.cuda.current_device())


def _listening(place: RankPlace) -> int:
    """A socket on the meeting place alone: torch's own would listen on every interface."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((place.address, place.port))
    listener.listen(512)
    return listener.detach()
