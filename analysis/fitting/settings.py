"""What `python -m analysis.fit` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from omegaconf import MISSING

from analysis.settings import StoreConf, WhereConf
from moesd_dist.config.checks import at_least, one_of
from moesd_dist.theory.moesd.points import Verified


class Each(StrEnum):
    """What separate fits differ in; `all` is one fit of everything."""

    all = "all"
    devices = "devices"
    layouts = "layouts"
    targets = "targets"
    drafts = "drafts"
    engines = "engines"


@dataclass
class FitWhereConf(WhereConf):
    """Which points; besides the setting, where and at what size they were measured."""

    batch_size: str | None = None
    gamma: str | None = None
    hardware: str | None = None
    host: str | None = None
    threads: str | None = None


@dataclass
class FitConf(StoreConf):
    sweep: Any = None  # name or id, or a list of them
    where: FitWhereConf = field(default_factory=FitWhereConf)
    each: Each = Each.all
    calibration: str = ""  # of jobs.calibrate, for points of several ranks; empty: a link is fitted
    hardware: str = ""  # of conf/hardware, for MoESD's bounds; empty: what the points say
    points: int | None = None  # fit so many strided ones and hold the rest out; null: all of them
    verified: str = (
        Verified.GAMMA.value
    )  # MoESD: the paper's gamma, or gamma_plus_one as engines do
    line_11: bool = False  # MoESD: the denominator as Algorithm 1 prints it
    bootstrap: int = 100  # refits behind an interval; 0 for none
    seed: int = 0
    out: str = MISSING

    def __post_init__(self) -> None:
        at_least("points", self.points, 1)
        one_of("verified", self.verified, tuple(v.value for v in Verified))
        if self.bootstrap != 0:
            at_least("bootstrap", self.bootstrap, 20)
