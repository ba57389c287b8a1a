"""Several configurations make one sweep: what they have to agree on, and their points together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from moesd_dist.axes import field_of
from moesd_dist.config import Conf, EngineKind
from moesd_dist.records import SweepPoint
from moesd_dist.specs import checked, grid_from
from moesd_dist.sweep.grid import Grid, value_of

# What belongs to a sweep as a whole, whichever points it has.
_WHOLE = ("cluster", "tracking", "launcher", "output", "plan", "budget_hours", "sweep.name", "sweep.extends", "sweep.adaptive", "validation")  # fmt: skip
# What a point carries itself, so that an engine is never given another's.
_IN_POINT = ("engine.kind", "engine.experts_implementation", "engine.fit", "engine.noise", "engine.args", "engine.cpu_fixes", "hardware.name", "hardware.device", "hardware.threads")  # fmt: skip
_IN_PREDICTION = ("hardware.figures", "hardware.achieved")
_LISTED = 12  # values that are spelled out


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A configuration; `about` is what tells it from the others, such as `model=embedded`."""

    conf: Conf
    about: str = ""


def points_of(jobs: Sequence[Job]) -> list[SweepPoint]:
    """All points once, in the order of the jobs.

    ValueError where jobs disagree about what they share, for an exclusion without effect, and for
    a point that could never be measured.
    """
    _check_agreement(jobs)
    grids = []
    for job in jobs:
        with _named(job):
            grids.append(grid_from(job.conf))
    _check_exclusions(jobs, grids)
    points: dict[str, SweepPoint] = {}
    for job, grid in zip(jobs, grids, strict=True):
        with _named(job):
            found = checked(grid.points, job.conf)
        for point in found:
            points.setdefault(point.point_id, point)
    return list(points.values())


_Found = tuple[Job, Mapping[str, Any]]
"""A job with its settings by their dotted keys."""


@contextmanager
def _named(job: Job) -> Iterator[None]:
    """Errors say which of several jobs they are about."""
    try:
        yield
    except ValueError as error:
        if not job.about:
            raise
        raise ValueError(f"{job.about}: {error}") from error


def _check_agreement(jobs: Sequence[Job]) -> None:
    first, *others = [(job, _settings(job.conf)) for job in jobs]
    for other in others:
        _agree(first, other, _WHOLE, "belongs to the whole sweep")
    kinds: dict[str, _Found] = {}
    places: dict[tuple[str, str], _Found] = {}
    for found in (first, *others):
        conf = found[0].conf
        kind, hardware = conf.engine.kind.value, conf.hardware.name
        rule, but = f"is the same wherever {kind} runs", _in_point(conf)
        _agree(kinds.setdefault(kind, found), found, ("engine",), rule, but)
        earlier = places.setdefault((kind, hardware), found)
        _agree(earlier, found, ("hardware",), f"{rule} on {hardware}", but)


def _in_point(conf: Conf) -> tuple[str, ...]:
    simulated = conf.engine.kind is EngineKind.analytic
    return _IN_POINT + _IN_PREDICTION if simulated else _IN_POINT


def _agree(
    one: _Found,
    other: _Found,
    keys: tuple[str, ...],
    rule: str,
    but: tuple[str, ...] = (),
) -> None:
    (a, left), (b, right) = one, other
    for key in {**left, **right}:
        if _within(key, keys) and not _within(key, but) and left.get(key) != right.get(key):
            raise ValueError(
                f"{key} {rule}, got {left.get(key)!r} ({a.about}) and {right.get(key)!r} "
                f"({b.about}); give one value, or run two sweeps"
            )


def _within(key: str, parents: tuple[str, ...]) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def _settings(conf: Conf) -> dict[str, Any]:
    """Every setting by its dotted key."""
    return dict(_leaves("", asdict(conf)))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, inner in value.items():
        yield from _leaves(f"{path}.{key}" if path else str(key), inner)


def _check_exclusions(jobs: Sequence[Job], grids: Sequence[Grid]) -> None:
    """One that leaves nothing out is most likely misspelled; of several jobs, one may need it."""
    used = [
        rule
        for job, grid in zip(jobs, grids, strict=True)
        for place, rule in enumerate(job.conf.sweep.exclude)
        if place not in grid.unused
    ]
    every = [point for grid in grids for point in (*grid.points, *grid.left_out)]
    for rule in (rule for job in jobs for rule in job.conf.sweep.exclude):
        if rule not in used:
            raise ValueError(
                f"sweep.exclude {rule} leaves nothing out, there are {_values(every, rule)}; "
                "correct it, or leave it away"
            )
    if not any(grid.points for grid in grids):
        raise ValueError(
            f"sweep.exclude leaves out all {len(every)} combinations; exclude fewer of them"
        )


def _values(points: Sequence[SweepPoint], names: Sequence[str]) -> str:
    """Such as `batch_size 1, 8; gamma 2`: what the fields of a rule run over."""
    texts = []
    for name in names:
        found = list(dict.fromkeys(str(value_of(p, field_of(name))) for p in points))
        more = " ..." if len(found) > _LISTED else ""
        texts.append(f"{name} {', '.join(found[:_LISTED])}{more}")
    return "; ".join(texts)
