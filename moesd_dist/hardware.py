"""The figures behind a name of conf/hardware: from its file, or measured on this host."""

from __future__ import annotations

from dataclasses import MISSING, asdict, fields
from difflib import get_close_matches
from typing import Any, TypeVar, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from moesd_dist import calibrations, cpu_cache
from moesd_dist.config import CONF, HardwareConf, ModelConf
from moesd_dist.records import Device
from moesd_dist.theory.devices.device import DeviceFigures
from moesd_dist.theory.devices.operations import Achieved
from moesd_dist.theory.steps.priors import Peaks
from moesd_dist.tracking.provenance import cpu_model

C = TypeVar("C")


def hardware_named(name: str) -> HardwareConf:
    """conf/hardware/NAME.yaml outside a composition; ValueError lists the names that exist."""
    return _named("hardware", name, HardwareConf)


def model_named(name: str) -> ModelConf:
    """conf/model/NAME.yaml likewise."""
    return _named("model", name, ModelConf)


def device_figures(conf: HardwareConf) -> DeviceFigures:
    """What a prediction for one such device starts from; ValueError where figures are unknown."""
    if conf.device is Device.cpu and not any(asdict(conf.figures).values()):
        alone = cpu_cache.read(threads=conf.threads, cpu_model=cpu_model()).figures
        measured = calibrations.of_this_host(threads=conf.threads, cpu_model=cpu_model())
        return calibrations.with_links(alone, measured) if measured else alone
    known = {key: value for key, value in asdict(conf.figures).items() if value is not None}
    unknown = [
        f.name for f in fields(DeviceFigures) if f.default is MISSING and f.name not in known
    ]
    if unknown:
        raise ValueError(
            f"hardware {conf.name} has no {', '.join(unknown)} to predict from; choose one of "
            f"{', '.join(_predictable())}, or give hardware.figures.{unknown[0]}"
        )
    return DeviceFigures(**known)


def known_peaks(conf: HardwareConf, *, tp_size: int) -> Peaks | None:
    """What a target on tp_size such devices cannot exceed; None where figures are unknown."""
    try:
        figures = device_figures(conf)
    except ValueError:
        return None
    return peaks_of(figures, tp_size=tp_size)


def peaks_of(figures: DeviceFigures, *, tp_size: int) -> Peaks:
    return Peaks(bytes_per_s=figures.bytes_per_s * tp_size, flops=figures.flops * tp_size)


def achieved_of(conf: HardwareConf) -> Achieved:
    return Achieved(**asdict(conf.achieved))


def _predictable() -> list[str]:
    """Hardware whose file has figures."""
    return [n for n in _names("hardware") if "figures" in OmegaConf.load(_file("hardware", n))]


def _named(group: str, name: str, schema: type[C]) -> C:
    names = _names(group)
    if name not in names:
        near = get_close_matches(name.casefold(), [n.casefold() for n in names], n=1)
        hint = [f"; did you mean {n}?" for n in names if n.casefold() in near]
        raise ValueError(f"no {group} {name!r}{''.join(hint)}; there are {', '.join(names)}")
    content: Any = OmegaConf.load(_file(group, name))
    del content["defaults"]
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), content)
        return cast(C, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        line = str(error).splitlines()[0]
        raise ValueError(f"{group} {name} stands for nothing by itself: {line}") from error


def _names(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def _file(group: str, name: str) -> str:
    return str(CONF / group / f"{name}.yaml")
