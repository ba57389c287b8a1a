"""Waits until nobody else uses the machine, as long as there is patience for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from moesd_dist.records import Device
from moesd_dist.records.neighbours import Neighbours

LOOK_S = 1.0  # over which the load of others is averaged
PAUSE_S = 5.0  # between two looks

Look = Callable[[Device, float], Neighbours]
"""Who else is there; the load of others is averaged over so many seconds, 0 leaves it out."""


def nobody(_device: Device, _over_s: float) -> Neighbours:
    """For an engine that no neighbour can disturb."""
    return Neighbours()


def until_quiet(
    look: Look, device: Device, *, cores: float, patience_s: float, pause_s: float = PAUSE_S
) -> Neighbours:
    """Who is there in the end. Without patience it is one look, at the GPUs alone.

    On a GPU only its own processes are waited for: a shared node is never idle.
    """
    deadline = time.monotonic() + patience_s
    over_s = LOOK_S if patience_s and device is Device.cpu else 0.0
    while True:
        found = look(device, over_s)
        quiet = not found.on_gpu and found.cores <= cores
        if quiet or time.monotonic() + pause_s > deadline:
            return found
        time.sleep(pause_s)
