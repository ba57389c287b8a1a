"""How a point can end: measured, impossible here, or failed."""

from __future__ import annotations

from dataclasses import dataclass

from moesd_dist.records.measurement import Measurement
from moesd_dist.records.point import SweepPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Infeasible:
    """The point cannot be measured on this hardware; bytes are given where memory is the reason."""

    point: SweepPoint
    reason: str
    bytes_needed: int = 0
    bytes_available: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The point was tried and broke; the sweep went on."""

    point: SweepPoint
    reason: str
    log: str = ""


Outcome = Measurement | Infeasible | Failed
