"""Both models of one sample: ours and MoESD's, or why MoESD's is left out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from analysis.fitting.points import Sample
from analysis.fitting.settings import FitConf
from analysis.fitting.sharing import terms_of_fit
from moesd_dist.hardware import device_figures, hardware_named, peaks_of
from moesd_dist.models.counts import counts_of
from moesd_dist.records import Device, Measurement
from moesd_dist.theory.counts import NO_MODEL, ModelCounts
from moesd_dist.theory.devices.device import DeviceFigures
from moesd_dist.theory.expert_parallel.ranks_fit import ALONE, SharedTerms
from moesd_dist.theory.moesd.forward_time import Denominator
from moesd_dist.theory.moesd.from_steps import MoesdModel
from moesd_dist.theory.moesd.points import Verified
from moesd_dist.theory.steps.priors import Peaks
from moesd_dist.tracking.provenance import cpu_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What is fitted to a sample."""

    target: ModelCounts
    draft: ModelCounts
    moesd: MoesdModel | None
    no_moesd: str = ""  # why there is none, and what to do
    peaks: Peaks | None = None  # of the target's devices, where known
    shared: SharedTerms = ALONE  # what is known of ranks
    calibrated: str = ""  # when their links were


def models_of(sample: Sample, conf: FitConf) -> Models:
    """ValueError if the size of target or draft is not known here, or the calibration does not fit."""
    shared, calibrated = terms_of_fit(sample.measured, conf.each, conf.calibration)
    found = _without_links(sample, conf)
    if sample.ranks != [1]:
        reason = "it has no term for links between ranks; choose one layout with each=layouts"
        found = replace(found, moesd=None, no_moesd=reason)
    return replace(found, shared=shared, calibrated=calibrated)


def _without_links(sample: Sample, conf: FitConf) -> Models:
    point = sample.measured[0].point
    target = counts_of(point.target)
    draft = counts_of(point.sd.draft) if point.sd.draft else NO_MODEL
    tp_size = point.layout.tp_size
    if conf.hardware:
        hardware_named(conf.hardware)  # a misspelt name must not pass for unknown figures
    try:
        figures = figures_of(sample.measured[0], conf.hardware)
    except ValueError as error:
        return Models(target=target, draft=draft, moesd=None, no_moesd=str(error))
    peaks = peaks_of(figures, tp_size=tp_size)
    try:
        moesd = MoesdModel(
            target=target,
            draft=draft,
            figures=figures,
            tp_size=tp_size,
            verified=Verified(conf.verified),
            denominator=Denominator.LINE_11 if conf.line_11 else Denominator.EQ_4,
            seed=conf.seed,
        )
    except ValueError as error:
        return Models(target=target, draft=draft, peaks=peaks, moesd=None, no_moesd=str(error))
    return Models(target=target, draft=draft, peaks=peaks, moesd=moesd)


def figures_of(measured: Measurement, hardware: str) -> DeviceFigures:
    """Of the hardware asked for, or of the one the point was measured on; ValueError if unknown."""
    name = hardware or measured.point.hardware
    conf = hardware_named(name)
    if conf.device is Device.cpu:
        conf = replace(conf, threads=measured.point.threads)
        if not measured.point.simulated:
            _check_processor(measured.device_name)
    try:
        return device_figures(conf)
    except ValueError as error:
        way_out = "" if hardware else "; or name another with hardware="
        raise ValueError(f"{error}{way_out}") from error


def _check_processor(name: str) -> None:
    """The cache holds figures of this host, and the points may be of another one."""
    here = cpu_model()
    if name and name != here:
        raise ValueError(
            f"the points are of a {name} and the figures of this host's {here};"
            " run analysis.fit where they were measured"
        )
