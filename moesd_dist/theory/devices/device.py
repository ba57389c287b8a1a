"""What a device can do at best: operations, bytes and messages per second, from its data sheet."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFigures:
    """Peak figures of one device; how much of them is achieved is `operations.Achieved`.

    The link is the one over which tensor parallelism adds up its partial sums (NVLink, Infinity
    Fabric, PCIe), in one direction. Its latency is of one hop of a small message, software included.
    The inter link leads to other nodes: what one device has of it. None is unknown.

    Raises ValueError unless every known figure is positive and finite.
    """

    flops: float  # 16-bit multiply-adds, dense (without structured sparsity), FLOP/s
    bytes_per_s: float  # of device memory
    memory_bytes: float
    clock_hz: float  # of the shader or compute units, boost: what a tiny kernel's latency follows
    link_bytes_per_s: float  # per direction
    link_latency_s: float
    inter_link_bytes_per_s: float | None = None  # per direction
    inter_link_latency_s: float | None = None
    devices_per_node: float | None = None  # that reach each other over the link

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not 0.0 < value < math.inf:
                raise ValueError(
                    f"{field.name} must be positive and finite, got {value}; see the data sheet"
                )


def within_a_node(figures: DeviceFigures) -> DeviceFigures:
    """Without what is known of other nodes."""
    return replace(
        figures, inter_link_bytes_per_s=None, inter_link_latency_s=None, devices_per_node=None
    )


def all_reduce_s(message_bytes: _Floats, device: DeviceFigures, *, tp_size: int) -> _Floats:
    """Seconds to add up a message over tp_size devices in a ring: 2 (p - 1) hops of a p-th each.

    Source: the alpha-beta cost of the ring all-reduce (Thakur, Rabenseifner, Gropp 2005).
    Raises ValueError if tp_size is below 1; one device has nothing to add up.
    """
    if not tp_size >= 1:
        raise ValueError(f"tp_size must be at least 1, got {tp_size}; count the target's devices")
    hop_s = device.link_latency_s + message_bytes / tp_size / device.link_bytes_per_s
    return 2 * (tp_size - 1) * hop_s
