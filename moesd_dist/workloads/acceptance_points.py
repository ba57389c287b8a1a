"""Our own measurements as acceptance profiles: what may be pooled, and what may not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import variance

from moesd_dist.records import DraftMethod, Measurement, Repeat, Role, SdSpec, SweepPoint
from moesd_dist.theory.acceptance_profile import AcceptanceProfile, pooled

Setting = tuple[tuple[str, str], ...]
"""What acceptance depends on, as text: engine, target, draft, top_k, temperature, workload."""


def profile_of(measurements: Sequence[Measurement]) -> AcceptanceProfile:
    """The measurements pooled: each position over all rounds that tried it, whatever their gamma.

    A repeat has its own prompts, the same at every gamma and batch size, so repeats are the
    independent samples: how far they scatter gives the dispersion.
    """
    columns = list(zip(*(m.repeats for m in measurements), strict=False))
    repeats = [pooled([_counted([r]) for r in column]) for column in columns]
    whole = pooled([_counted(m.repeats) for m in measurements])
    return replace(whole, dispersion=_dispersion(repeats, len(whole.conditional)))


def speculative(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Those in which something was drafted."""
    return [m for m in measurements if m.point.role is Role.sd and m.point.gamma]


def is_synthetic(measurement: Measurement) -> bool:
    """Nothing was verified: acceptance was drawn by coin, or the whole point is a formula's."""
    return measurement.point.synthetic_acceptance or measurement.point.simulated


def by_setting(measurements: Iterable[Measurement]) -> dict[Setting, list[Measurement]]:
    """Only measurements of one setting have the same acceptance, at any gamma and batch size."""
    found: dict[Setting, list[Measurement]] = {}
    for measurement in measurements:
        found.setdefault(setting_of(measurement), []).append(measurement)
    return found


def setting_of(measurement: Measurement) -> Setting:
    point = measurement.point
    work = point.workload
    lengths = f"{work.prompt_tokens_min}..{work.prompt_tokens_max}+{work.output_tokens}"
    values = {
        "engine": point.engine,
        "target": _model(point),
        "draft": _draft(point.sd),
        "top_k": measurement.top_k or (point.top_k or "none"),
        "temperature": f"{point.temperature:g}",
        "workload": f"{work.name} {work.digest}".strip(),
        "tokens": lengths,
        "seed": work.seed,
        "acceptance": _acceptance(measurement),
    }
    return tuple((name, str(value)) for name, value in values.items())


def differing(settings: Sequence[Setting]) -> dict[str, list[str]]:
    """The names that differ between settings, with their values in order."""
    columns: dict[str, dict[str, None]] = {}
    for setting in settings:
        for name, value in setting:
            columns.setdefault(name, {})[value] = None
    return {name: list(values) for name, values in columns.items() if len(values) > 1}


def only(measurements: Sequence[Measurement], where: Mapping[str, str]) -> list[Measurement]:
    """Those whose setting has these values, such as {"top_k": "4"}."""
    return [m for m in measurements if where.items() <= dict(setting_of(m)).items()]


def _dispersion(repeats: Sequence[AcceptanceProfile], gamma: int) -> float:
    """Variance of sigma between repeats over what independent rounds would have; at least 1."""
    expected = sum(profile.sigma_variance(gamma) for profile in repeats) / len(repeats)
    if len(repeats) < 2 or not expected:
        return 1.0
    return max(1.0, variance([profile.sigma(gamma) for profile in repeats]) / expected)


def _counted(repeats: Sequence[Repeat]) -> AcceptanceProfile:
    columns = zip(*(r.accepted_per_position for r in repeats), strict=True)
    rounds = sum(r.sequence_rounds for r in repeats)
    return AcceptanceProfile.from_counts([sum(column) for column in columns], rounds)


def _model(point: SweepPoint) -> str:
    target = point.target
    changes = [f"{key}={value}" for key, value in target.overrides]
    weights = target.digest or ("random" if point.random_weights else target.location)
    return " ".join([target.name, weights, target.dtype, *changes])


def _acceptance(measurement: Measurement) -> str:
    if is_synthetic(measurement):
        return "synthetic"
    return "controlled" if measurement.point.controlled_acceptance else "verified"


def _draft(sd: SdSpec) -> str:
    if sd.method is DraftMethod.oracle:
        return f"oracle alpha={sd.alpha}"
    if sd.method is DraftMethod.ngram:
        return f"ngram {sd.ngram_min}..{sd.ngram_max}"
    return " ".join([sd.draft.name, sd.draft.digest]).strip() if sd.draft else sd.method.value
