"""From what a simulated point is predicted: part of the point, so that two formulas never mix."""

from __future__ import annotations

from dataclasses import dataclass, field

Items = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSpec:
    """Either a device and what an engine achieves of it, or a fit; the other side is empty.

    `fit` is the digest of the saved fit's content; its path is no part of the identity.
    """

    device: Items = ()  # fields of theory.device.DeviceFigures
    achieved: Items = ()  # fields of theory.operations.Achieved
    fit: str = ""
    fit_path: str = field(default="", compare=False)
    hidden_share: float = 0.0  # of the traffic between ranks, behind computation
    noise: float = 0.0  # standard deviation of the logarithm of a repeat's seconds
