"""Who else is on a machine while something is measured there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """`on_gpu` has a line for each process of others on our GPUs, with its memory."""

    cores: float = 0.0  # that others keep busy; 0 where it was not looked at
    on_gpu: tuple[str, ...] = ()
