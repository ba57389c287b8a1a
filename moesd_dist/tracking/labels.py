"""What a run is called and found by in MLflow: text made of a record alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from moesd_dist.records import (
    Failed,
    Infeasible,
    LayoutSpec,
    Measurement,
    Outcome,
    Role,
    SweepPoint,
)
from moesd_dist.records.serial import kind_of
from moesd_dist.tracking.provenance import Provenance

_TEXT = 5000  # characters; the tightest limit on a value among MLflow versions and stores
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")  # but tabs and newlines
_LISTED = 24  # values of an axis that are still spelled out


def run_name(point: SweepPoint) -> str:
    """Such as `B=8 gamma=3 EP=4 nodes=2`; an axis at its default is left out."""
    parts = [f"B={point.batch_size}", f"gamma={point.gamma}"]
    if point.temperature:
        parts.append(f"T={point.temperature}")
    if point.top_k is not None:
        parts.append(f"K={point.top_k}")
    if point.role is Role.control:
        parts.append("control")
    return " ".join([*parts, *_layout_name(point.layout)])


def _layout_name(layout: LayoutSpec) -> list[str]:
    sizes = {"EP": layout.ep_size, "nodes": layout.nodes}
    return [
        *(f"{name}={size}" for name, size in sizes.items() if size > 1),
        *filter(None, (layout.expert_placement, layout.all2all_backend)),
    ]


def point_params(point: SweepPoint) -> dict[str, str]:
    """The axes of the point; `top_k` is `model` where the model's own is left."""
    target, draft, layout, workload = point.target, point.sd.draft, point.layout, point.workload
    widths = (target.widen_hidden, target.widen_expert, target.widen_heads)
    values = {
        "source": source(point),
        "engine": point.engine,
        "target": point.target.name,
        "draft": draft.name if draft else "none",
        "sd_method": point.sd.method.value,
        "synthetic_acceptance": ", ".join(map(str, point.sd.synthetic_acceptance)) or "none",
        "batch_size": point.batch_size,
        "gamma": point.gamma,
        "temperature": point.temperature,
        "top_k": "model" if point.top_k is None else point.top_k,
        "role": point.role.value,
        "workload": workload.name,
        "prompt_tokens_min": workload.prompt_tokens_min,
        "prompt_tokens_max": workload.prompt_tokens_max,
        "output_tokens": workload.output_tokens,
        "workload_seed": workload.seed,
        "hardware": point.hardware,
        "device": point.device.value,
        "threads": point.threads,
        "dtype": point.target.dtype,
        "experts_implementation": point.experts_implementation,
        "tp_size": layout.tp_size,
        "dp_size": layout.dp_size,
        "ep_size": layout.ep_size,
        "nodes": layout.nodes,
        "expert_placement": layout.expert_placement or "default",
        "expert_loads": layout.loads_digest or "none",
        "all2all_backend": layout.all2all_backend or "default",
        "repeats": point.protocol.repeats,
        "warmup_rounds": point.protocol.warmup_rounds,
        "window_tokens": point.protocol.window_tokens,
        "ngram": f"{point.sd.ngram_min}..{point.sd.ngram_max}",
        "widen": "x".join(map(str, widths)),
        "overrides": ", ".join(f"{key}={value}" for key, value in target.overrides) or "none",
        "weights": target.digest or target.location or "random",
        "predicted_from": _predicted_from(point),
        "sd_options": _sd_options(point),
        "expert_layout": _expert_layout(point),
        "engine_args": _items(point.engine_args),
        "cpu_fixes": str(point.cpu_fixes).lower(),
    }
    return {name: _text(str(value)) for name, value in values.items()}


def _predicted_from(point: SweepPoint) -> str:
    if point.simulation is None:
        return "nothing: measured"
    if point.simulation.fit:
        return f"fit {point.simulation.fit} of {point.simulation.fit_path}"
    figures = (*point.simulation.device, *point.simulation.achieved)
    return ", ".join(f"{name}={value:g}" for name, value in figures)


def _sd_options(point: SweepPoint) -> str:
    parts = [f"alpha={point.sd.alpha}"] if point.sd.alpha is not None else []
    parts += [f"B={first}..{last}: {tokens}" for first, last, tokens in point.sd.schedule]
    return ", ".join([*parts, *(f"{k}={v}" for k, v in point.sd.options)]) or "none"


def _expert_layout(point: SweepPoint) -> str:
    layout = point.layout
    names = (layout.all2all_backend, layout.expert_placement, "eplb" if layout.eplb else "")
    redundant = f"{layout.redundant_experts} redundant" if layout.redundant_experts else ""
    return " ".join(filter(None, (*names, redundant))) or "default"


def _items(items: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{key}={value}" for key, value in items) or "none"


def sweep_params(points: Sequence[SweepPoint]) -> dict[str, str]:
    """The number of points, and what each axis runs over, in the order of the sweep."""
    columns: dict[str, dict[str, None]] = {}
    for point in points:
        for name, value in point_params(point).items():
            columns.setdefault(name, {})[value] = None
    return {"points": str(len(points))} | {n: _axis(list(seen)) for n, seen in columns.items()}


def _axis(values: list[str]) -> str:
    if len(values) <= _LISTED:
        return ", ".join(values)[:_TEXT]
    return f"{values[0]} ... {values[-1]} ({len(values)} values)"[:_TEXT]


def outcome_tags(outcome: Outcome) -> dict[str, str]:
    point = outcome.point
    tags = {
        "moesd.point_id": point.point_id,
        "moesd.outcome": kind_of(outcome),
        "source": source(point),
        "moesd.source": source(point),
        "moesd.acceptance": acceptance(point),
        "moesd.weights": weights(point),
        "moesd.role": point.role.value,
    }
    return tags | (_measured(outcome) if isinstance(outcome, Measurement) else _reason(outcome))


def source(point: SweepPoint) -> str:
    """`simulated` where a formula stands for a clock."""
    return "simulated" if point.simulated else "measured"


def weights(point: SweepPoint) -> str:
    """`none` where nothing was loaded."""
    if point.simulated:
        return "none"
    return "random" if point.random_weights else "trained"


def acceptance(point: SweepPoint) -> str:
    """`baseline` where nothing is drafted, so that an A/A control is never taken for SD.

    `controlled`: verified by the target, but drafted to be accepted at a chosen rate.
    """
    if point.gamma == 0:
        return "baseline"
    if point.synthetic_acceptance:
        return "synthetic"
    return "controlled" if point.controlled_acceptance else "verified"


def provenance_tags(provenance: Provenance) -> dict[str, str]:
    """The `mlflow.source` ones fill the UI's own columns."""
    tags = {
        "mlflow.source.name": provenance.command,
        "mlflow.source.git.commit": provenance.git_commit,
        "moesd.command": provenance.command,
        "moesd.git_commit": provenance.git_commit,
        "moesd.git_dirty": str(provenance.git_dirty).lower(),
        "moesd.host": provenance.host,
        "moesd.cpu_model": provenance.cpu_model,
        "moesd.cores": str(provenance.cores),
        "moesd.gpus": ", ".join(provenance.gpus),
        "moesd.version.python": provenance.python,
    }
    versions = {f"moesd.version.{name}": text for name, text in provenance.packages.items()}
    return filled(tags | versions)


def filled(tags: dict[str, str]) -> dict[str, str]:
    """Without empty tags, and what every store takes: not too long, no control characters."""
    return {key: text for key, value in tags.items() if (text := _text(value))}


def _text(value: str) -> str:
    return _UNPRINTABLE.sub("", value)[:_TEXT]


def _measured(measurement: Measurement) -> dict[str, str]:
    machine = {f"moesd.machine.{fact}": text for fact, text in measurement.machine.items()}
    return filled(
        {
            "moesd.flags": ",".join(measurement.flags),
            "moesd.host": measurement.host,
            "moesd.device_name": measurement.device_name,
            "moesd.experts_path": measurement.experts_path,
        }
        | machine
    )


def _reason(outcome: Infeasible | Failed) -> dict[str, str]:
    return filled({"moesd.reason": outcome.reason})
