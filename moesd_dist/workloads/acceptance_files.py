"""Acceptance from a file: ours, vLLM's, published lengths, or our own measurements."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from moesd_dist.records import Measurement
from moesd_dist.records.serial import outcome_from_plain
from moesd_dist.theory.acceptance_profile import AcceptanceProfile
from moesd_dist.workloads import acceptance_forms, acceptance_points, acceptance_vllm
from moesd_dist.workloads.acceptance_forms import checked


class Form(StrEnum):
    """What a file was recognised as."""

    profile = "moesd-acceptance"
    vllm = "vllm"
    lengths = "acceptance lengths"
    measurements = "measurements"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedAcceptance:
    """A profile and where it came from; `setting` is what the file says of target, draft, workload.

    `synthetic`: acceptance was drawn by coin or computed, no draft was verified.
    """

    profile: AcceptanceProfile
    origin: str
    form: Form
    synthetic: bool = False
    setting: dict[str, str] = field(default_factory=dict)


def read_profile(path: str | Path, *, where: Mapping[str, str] | None = None) -> ImportedAcceptance:
    """The profile of a file, its form told by its content, its figures checked against each other.

    `where` chooses among measurements of several settings, such as {"top_k": "4"}.
    Raises ValueError, one line with the path, for a file that is not there, is of no known form,
    contradicts itself, leaves its convention open, or mixes settings.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(
            f"no acceptance file {str(path)!r}; give sd.acceptance=FILE: JSON, YAML or metrics"
        )
    try:
        return _read(parsed(file.read_text(encoding="utf-8")), str(path), where or {})
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path}: {_said(error)}") from error


def parsed(text: str) -> Any:
    """JSON or YAML as plain values; the text itself if it is a page of vLLM's /metrics."""
    if acceptance_vllm.is_vllm(text):
        return text
    try:
        return json.loads(text)  # first: a points.json takes YAML a minute
    except json.JSONDecodeError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"neither JSON nor YAML nor vLLM's metrics: {error}") from error


def _read(content: Any, origin: str, where: Mapping[str, str]) -> ImportedAcceptance:
    if acceptance_vllm.is_vllm(content):
        stated = acceptance_vllm.read_vllm(content)
        profile = checked(stated.profile, stated.lengths)
        setting = {"target": stated.model} if stated.model else {}
        return ImportedAcceptance(profile=profile, origin=origin, form=Form.vllm, setting=setting)
    match content:
        case {"outcome": _}:
            return _measured([content], origin, where)
        case [{"outcome": _}, *_]:
            return _measured(content, origin, where)
        case {"acceptance_length": Mapping()}:
            profile = acceptance_forms.of_lengths(content)
            return ImportedAcceptance(profile=profile, origin=origin, form=Form.lengths)
        case {"format": _} | {"rates": _}:
            return _ours(content, origin)
    raise ValueError(
        "no acceptance in here; give {format: moesd-acceptance, convention, rates}, "
        "{acceptance_length: {3: 2.4}, bonus}, vLLM's metrics or benchmark result, or a points.json"
    )


def _ours(content: Mapping[str, Any], origin: str) -> ImportedAcceptance:
    synthetic, setting = content.get("synthetic", False), content.get("setting", {})
    if not isinstance(synthetic, bool):
        raise ValueError(f"synthetic must be true or false, got {synthetic!r}")
    if not isinstance(setting, Mapping):
        raise ValueError(f"setting maps names to values, got {setting!r}")
    return ImportedAcceptance(
        profile=acceptance_forms.of_rates(content),
        origin=origin,
        form=Form.profile,
        synthetic=synthetic,
        setting={str(key): str(value) for key, value in setting.items()},
    )


def _measured(content: list[Any], origin: str, where: Mapping[str, str]) -> ImportedAcceptance:
    outcomes = [outcome_from_plain(plain) for plain in content]
    found = acceptance_points.speculative(m for m in outcomes if isinstance(m, Measurement))
    wanted = acceptance_points.only(found, where)
    real = [m for m in wanted if not acceptance_points.is_synthetic(m)]
    if not real:
        raise ValueError(
            f"no verified SD point in here: {len(content)} points, {len(found)} of SD, "
            f"{len(wanted)} as wanted, all synthetic or simulated; export them for a marked file"
        )
    groups = acceptance_points.by_setting(real)
    if mixed := acceptance_points.differing(list(groups)):
        listed = ", ".join(f"{name} {' and '.join(values)}" for name, values in mixed.items())
        raise ValueError(
            f"a profile is of one setting, this file has {listed}; split it with "
            f"python -m analysis.acceptance --points {origin} --out FILE"
        )
    (setting,) = groups
    profile = acceptance_points.profile_of(real)
    return ImportedAcceptance(
        profile=profile, origin=origin, form=Form.measurements, setting=dict(setting)
    )


def _said(error: Exception) -> str:
    """A YAML error spans lines; a KeyError is only its key."""
    text = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
    return " ".join(text.split())
