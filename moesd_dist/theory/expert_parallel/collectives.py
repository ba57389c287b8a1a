"""What links cost: seconds in which ranks hand each other the tokens of a layer, and take them back."""

# Alpha-beta: a collective takes a latency, and its bytes over the bandwidth of the link. Ranks of one
# node use the inner link, others the outer one, both at once, so the slower of the two counts
# (Thakur, Rabenseifner, Gropp 2005; the two tiers are ours). A switch is taken to have room for all.

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]

COUNT_BYTES = 8.0  # one integer to each other rank: how many rows it will get


class ExchangeCost(Protocol):
    """Seconds of one collective over `ranks` ranks; arrays broadcast, one rank costs nothing."""

    def all_to_all_s(self, bytes_out: npt.ArrayLike, ranks: npt.ArrayLike) -> _Floats:
        """`bytes_out` is what one rank hands to all others together, an equal share to each."""
        ...

    def all_gather_s(self, bytes_out: npt.ArrayLike, ranks: npt.ArrayLike) -> _Floats:
        """`bytes_out` is what one rank contributes; every other rank gets all of it."""
        ...

    def reduce_scatter_s(self, bytes_out: npt.ArrayLike, ranks: npt.ArrayLike) -> _Floats:
        """`bytes_out` is what one rank contributes: summands for all ranks, its own included."""
        ...

    def counts_s(self, ranks: npt.ArrayLike) -> _Floats:
        """An all-to-all of COUNT_BYTES for each other rank."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One direction of what a rank has to itself; `peer_s` is paid for each rank at the other end.

    Raises ValueError if a time is negative or the rate is not positive.
    """

    latency_s: float  # once a collective
    bytes_per_s: float  # inf: bytes cost nothing
    peer_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("latency_s", "peer_s"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name} must be 0 or more and finite, got {value}; 0 is ideal")
        if not self.bytes_per_s > 0.0:
            raise ValueError(f"bytes_per_s must be positive, got {self.bytes_per_s}; use bytes/s")

    def seconds(self, bytes_out: _Floats, peers: _Floats) -> _Floats:
        """For that many bytes to all peers together; nobody at the other end costs nothing."""
        spent = self.latency_s + peers * self.peer_s + bytes_out / self.bytes_per_s
        return np.where(peers > 0.0, spent, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Two tiers: `intra` among the ranks of a node, `inter` to all others; None: one node only."""

    intra: Link
    inter: Link | None = None
    ranks_per_node: int

    def __post_init__(self) -> None:
        if self.ranks_per_node < 1:
            raise ValueError(f"ranks_per_node must be at least 1, got {self.ranks_per_node}")

    def all_to_all_s(self, bytes_out: npt.ArrayLike, ranks: npt.ArrayLike) -> _Floats:
        """Of the slowest rank; where nodes are not alike, the emptiest node sends most to others."""
        size, node = self._sizes(ranks)
        share = np.asarray(bytes_out, np.float64) / np.maximum(size - 1.0, 1.0)
        near = node - 1.0
        far = size - _emptiest(size, node)
        return self._both(share * near, near, share * far, far)

    def all_gather_s(self, bytes_out: npt.ArrayLike, ranks: npt.ArrayLike) -> _Floats:
        """Bytes enter a node once, through the links of all its ranks, and are passed on inside."""
        size, node = self._sizes(ranks)
        own = np.asarray(bytes_out, np.float64)
        far = size - node
        entering = own * far / node
        return self._both(own * (size - 1.0) - entering, node - 1.0, entering, far)

    def reduce_scatter_s(self, bytes_out: npt.ArrayLike, ranks: npt.ArrayLike) -> _Floats:
        """The all-gather of a rank's share, run backwards."""
        return self.all_gather_s(np.asarray(bytes_out, np.float64) / _counted(ranks), ranks)

    def counts_s(self, ranks: npt.ArrayLike) -> _Floats:
        return self.all_to_all_s(COUNT_BYTES * (_counted(ranks) - 1.0), ranks)

    def _sizes(self, ranks: npt.ArrayLike) -> tuple[_Floats, _Floats]:
        """Ranks altogether and of a full node; ValueError if they span nodes without a link."""
        size = _counted(ranks)
        if self.inter is None and np.any(size > self.ranks_per_node):
            raise ValueError(
                f"{int(size.max())} ranks span nodes of {self.ranks_per_node}, and nothing is known "
                "of the link between nodes; give inter, or fewer ranks"
            )
        return size, np.minimum(size, float(self.ranks_per_node))

    def _both(self, inside: _Floats, near: _Floats, outside: _Floats, far: _Floats) -> _Floats:
        within = self.intra.seconds(inside, near)
        if self.inter is None:
            return within
        return np.maximum(within, self.inter.seconds(outside, far))


def _counted(ranks: npt.ArrayLike) -> _Floats:
    size = np.asarray(ranks, dtype=np.float64)
    if np.any(size < 1.0):
        raise ValueError(f"ranks must be at least 1, got {size.min():g}; one rank has no links")
    return size


def _emptiest(size: _Floats, node: _Floats) -> _Floats:
    """Ranks of the last node, if all others are full."""
    return size - node * (np.ceil(size / node) - 1.0)
