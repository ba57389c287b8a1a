"""What crosses every border: points to measure, what was measured, and why something was not."""

from moesd_dist.records.exchange import Exchange, RankTrace
from moesd_dist.records.measurement import Interval, Measurement, Repeat
from moesd_dist.records.outcome import Failed, Infeasible, Outcome
from moesd_dist.records.place import RankPlace
from moesd_dist.records.point import Protocol, SweepPoint
from moesd_dist.records.simulation import SimulationSpec
from moesd_dist.records.specs import (
    Device,
    DraftMethod,
    LayoutSpec,
    ModelSource,
    ModelSpec,
    Role,
    SdSpec,
    WorkloadSpec,
)

__all__ = [
    "Device",
    "DraftMethod",
    "Exchange",
    "Failed",
    "Infeasible",
    "Interval",
    "LayoutSpec",
    "Measurement",
    "ModelSource",
    "ModelSpec",
    "Outcome",
    "Protocol",
    "RankPlace",
    "RankTrace",
    "Repeat",
    "Role",
    "SdSpec",
    "SimulationSpec",
    "SweepPoint",
    "WorkloadSpec",
]
