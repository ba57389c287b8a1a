"""What simulated points are predicted from, looked up and checked before the sweep."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from moesd_dist.config import Conf, EngineConf, HardwareConf
from moesd_dist.hardware import achieved_of, device_figures, hardware_named
from moesd_dist.models.counts import counts_of
from moesd_dist.records import Device, DraftMethod, SimulationSpec, SweepPoint
from moesd_dist.theory.counts import NO_MODEL
from moesd_dist.theory.steps.model import StepModel
from moesd_dist.theory.steps.saved import about, load_model


def with_simulations(points: Sequence[SweepPoint], conf: Conf) -> list[SweepPoint]:
    """Simulated points with their figures or fit; an axis over `hardware` takes each name's own.

    Raises ValueError if figures are unknown, or if a fit is none or of other models.
    """
    names = {point.hardware for point in points if point.simulated}
    specs = {name: simulation_spec(_hardware(name, conf), conf.engine) for name in sorted(names)}
    if names and conf.engine.fit:
        text = _text(conf.engine.fit)
        model = load_model(text)
        for point in {(p.hardware, p.threads, p.layout): p for p in points if p.simulated}.values():
            _check_place(point, about(text))
        for point in {(p.target, p.sd): p for p in points}.values():
            _check_models(point, model)
    elif names:
        for target, draft in {(p.target, p.sd.draft) for p in points}:
            _ = counts_of(target), draft and counts_of(draft)
    return [replace(p, simulation=specs[p.hardware]) if p.simulated else p for p in points]


def simulation_spec(hardware: HardwareConf, engine: EngineConf) -> SimulationSpec:
    """A fit knows its device; without one the hardware's figures are needed."""
    if engine.fit:
        digest = hashlib.sha256(_text(engine.fit).encode()).hexdigest()[:16]
        path = str(Path(engine.fit).expanduser().resolve())
        return SimulationSpec(fit=digest, fit_path=path, noise=engine.noise)
    return SimulationSpec(
        device=_items(asdict(device_figures(hardware))),
        achieved=_items(asdict(achieved_of(hardware))),
        noise=engine.noise,
    )


def _items(figures: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple((name, float(value)) for name, value in sorted(figures.items()))


def _hardware(name: str, conf: Conf) -> HardwareConf:
    return conf.hardware if name == conf.hardware.name else hardware_named(name)


def _text(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"engine.fit {path!r} cannot be read; give the fit.json of a fit"
        ) from error


def _check_place(point: SweepPoint, fitted: Mapping[str, Any]) -> None:
    """A fit holds for the device and the layout that were measured; ValueError for others."""
    here: dict[str, Any] = {"hardware": point.hardware, "layout": asdict(point.layout)}
    if point.device is Device.cpu:
        here["threads"] = point.threads
    for name, value in here.items():
        if name in fitted and fitted[name] != value:
            raise ValueError(
                f"the fit is of {name} {fitted[name]}, this sweep says {value}; predict there, or "
                "leave engine.fit away to predict from the figures of conf/hardware"
            )


def _check_models(point: SweepPoint, model: StepModel) -> None:
    """A fit holds for the models that were measured; ValueError for others."""
    if counts_of(point.target) != model.target:
        raise ValueError(
            f"the fit is of another target than {point.target.name}; give the model of its sweep"
        )
    if point.sd.method is DraftMethod.none:
        return
    draft = counts_of(point.sd.draft) if point.sd.draft else NO_MODEL
    if draft != model.draft:
        raise ValueError(
            "the fit is of another draft than this sweep's sd; choose the sd of the fitted sweep"
        )
