"""Hydra's schemas: mutable and dumb, checked here, turned into frozen records by `build`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from moesd_dist.config.engine import EngineConf, EngineKind
from moesd_dist.config.machine import (
    AchievedConf,
    FiguresConf,
    ForeignLoadPolicy,
    HardwareConf,
    LayoutConf,
)
from moesd_dist.config.models import ModelConf, SdConf, WidenConf, WorkloadConf
from moesd_dist.config.sweep import AdaptiveConf, ClusterConf, SweepConf, TrackingConf
from moesd_dist.config.validation import ValidationConf

__all__ = [
    "CONF",
    "AchievedConf",
    "AdaptiveConf",
    "ClusterConf",
    "Conf",
    "EngineConf",
    "EngineKind",
    "FiguresConf",
    "ForeignLoadPolicy",
    "HardwareConf",
    "Launcher",
    "LayoutConf",
    "ModelConf",
    "SdConf",
    "SweepConf",
    "TrackingConf",
    "ValidationConf",
    "WidenConf",
    "WorkloadConf",
    "register",
]

_PACKAGE = Path(__file__).resolve().parent.parent
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"


class Launcher(StrEnum):
    """Where engines live: in Ray actors, or in this process."""

    ray = "ray"
    inline = "inline"


@dataclass
class Conf:
    """The whole configuration of `python -m moesd_dist`."""

    model: ModelConf = MISSING
    sd: SdConf = MISSING
    workload: WorkloadConf = MISSING
    hardware: HardwareConf = MISSING
    layout: LayoutConf = MISSING
    engine: EngineConf = MISSING
    cluster: ClusterConf = MISSING
    tracking: TrackingConf = MISSING
    sweep: SweepConf = MISSING
    validation: ValidationConf | None = None  # foretell the points over several ranks, then compare
    launcher: Launcher = Launcher.ray
    plan: bool = False  # print what would be done and spend nothing
    budget_hours: float | None = (
        None  # GPU-hours (node-hours on CPUs): what they would buy, in the plan
    )
    output: str = MISSING


def register() -> None:
    """Makes the schemas known to Hydra under `schema/`, for the files of `conf/` to extend."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Conf)
    groups = {
        "model": ModelConf, "sd": SdConf, "workload": WorkloadConf, "hardware": HardwareConf,
        "layout": LayoutConf, "engine": EngineConf, "cluster": ClusterConf,
        "tracking": TrackingConf, "sweep": SweepConf,
    }  # fmt: skip
    for group, node in groups.items():
        store.store(group="schema", name=group, node=node)
