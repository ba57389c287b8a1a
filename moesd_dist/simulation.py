"""What simulated points are predicted from, looked up and checked before the sweep."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from moesd_dist.config import Conf, EngineConf, HardwareConf
from moesd_dist.cpu_cache import NO_LINK_BYTES_PER_S
from moesd_dist.engines.analytic_ranks import links_of
from moesd_dist.hardware import achieved_of, device_figures, hardware_named
from moesd_dist.models.counts import counts_of
from moesd_dist.records import (
    Device,
    DraftMethod,
    LayoutSpec,
    ModelSpec,
    SimulationSpec,
    SweepPoint,
)
from moesd_dist.theory.counts import NO_MODEL
from moesd_dist.theory.devices.device import DeviceFigures, within_a_node
from moesd_dist.theory.steps.model import StepModel
from moesd_dist.theory.steps.saved import about, load_model

_ONE_RANK = LayoutSpec()


def with_simulations(points: Sequence[SweepPoint], conf: Conf) -> list[SweepPoint]:
    """Simulated points with their figures or fit; an axis over `hardware` takes each name's own.

    Raises ValueError if figures are unknown, or if a fit is none or of other models.
    """
    places = {(p.hardware, p.layout) for p in points if p.simulated}
    specs = {
        (name, layout): simulation_spec(_hardware(name, conf), conf.engine, layout)
        for name, layout in sorted(places, key=str)
    }
    if places and conf.engine.fit:
        text = _text(conf.engine.fit)
        model = load_model(text)
        for point in {(p.hardware, p.threads, p.layout): p for p in points if p.simulated}.values():
            _check_place(point, about(text))
        for point in {(p.target, p.sd): p for p in points}.values():
            _check_models(point, model)
    elif places:
        for target, draft in {(p.target, p.sd.draft) for p in points}:
            _ = counts_of(target), draft and counts_of(draft)
        for target in {p.target for p in points if p.layout.dp_size > 1}:
            _check_experts(target)
    return [
        replace(p, simulation=specs[p.hardware, p.layout]) if p.simulated else p for p in points
    ]


def simulation_spec(
    hardware: HardwareConf, engine: EngineConf, layout: LayoutSpec = _ONE_RANK
) -> SimulationSpec:
    """A fit knows its device; without one the hardware's figures are needed.

    What only matters between ranks is left out where there is one: it would change the identity of
    points that it does not change. Raises ValueError for ranks between which no link is known.
    """
    several = layout.dp_size > 1
    if engine.fit and several:
        raise ValueError(
            f"engine.fit knows no links, {layout.dp_size} ranks that share experts need them; leave "
            "it away to predict from the figures of conf/hardware"
        )
    if engine.fit:
        digest = hashlib.sha256(_text(engine.fit).encode()).hexdigest()[:16]
        path = str(Path(engine.fit).expanduser().resolve())
        return SimulationSpec(fit=digest, fit_path=path, noise=engine.noise)
    figures = device_figures(hardware)
    if several:
        _check_links(figures, layout, hardware.name)
    return SimulationSpec(
        device=_items(asdict(figures if several else within_a_node(figures))),
        achieved=_items(asdict(achieved_of(hardware))),
        hidden_share=engine.hidden_share if several else 0.0,
        noise=engine.noise,
    )


def _check_links(figures: DeviceFigures, layout: LayoutSpec, hardware: str) -> None:
    """ValueError where ranks would have to talk over links of which nothing is known."""
    if figures.link_bytes_per_s >= NO_LINK_BYTES_PER_S:
        raise ValueError(
            f"hardware {hardware} has no link between ranks to predict from; give all of "
            "hardware.figures, link_bytes_per_s and link_latency_s among them"
        )
    links_of(figures, layout, hardware)


def _check_experts(target: ModelSpec) -> None:
    if not counts_of(target).num_experts:
        raise ValueError(
            f"{target.name} is dense, so ranks have no experts to share; use layout=single or tp2"
        )


def _items(figures: Mapping[str, float | None]) -> tuple[tuple[str, float], ...]:
    """Those that are known."""
    known = {name: value for name, value in figures.items() if value is not None}
    return tuple((name, float(value)) for name, value in sorted(known.items()))


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
    said = fitted.get("layout", {})  # fields are added to layouts: older fits say fewer
    layout = {name: value for name, value in asdict(point.layout).items() if name in said}
    here: dict[str, Any] = {"hardware": point.hardware, "layout": layout}
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
