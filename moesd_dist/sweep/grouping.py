"""A baseline and the SD points compared with it, and the engine that measures them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from moesd_dist.records import (
    LayoutSpec,
    ModelSpec,
    RankPlace,
    Role,
    SimulationSpec,
    SweepPoint,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Points of one baseline: same model, workload, batch, seed, top_k and temperature."""

    baseline: SweepPoint
    points: tuple[SweepPoint, ...]  # SD and control points still to be measured
    baseline_is_new: bool

    @property
    def wanted(self) -> tuple[SweepPoint, ...]:
        """The points that this group's measurement completes."""
        return ((self.baseline,) if self.baseline_is_new else ()) + self.points


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """What an engine is loaded for; points of equal keys share it.

    An engine over several data-parallel ranks is one engine object a rank, told apart by `place`.
    """

    engine: str
    target: ModelSpec
    draft: ModelSpec | None
    hardware: str
    device: str
    threads: int
    experts_implementation: str
    layout: LayoutSpec
    simulation: SimulationSpec | None = None
    engine_args: tuple[tuple[str, str], ...] = ()
    cpu_fixes: bool = False
    place: RankPlace = field(default_factory=RankPlace)


def groups(points: Iterable[SweepPoint], finished: Collection[str]) -> list[Group]:
    """What is left to do, by baseline and draft model, in the order of the points."""
    members: dict[SweepPoint, list[SweepPoint]] = {}
    for point in points:
        members.setdefault(point.baseline, []).append(point)
    made = []
    for baseline, all_points in members.items():
        missing = [p for p in all_points if p.point_id not in finished]
        if missing:
            made += _by_draft(baseline, missing)
    return made


def _by_draft(baseline: SweepPoint, missing: list[SweepPoint]) -> list[Group]:
    """An engine holds one draft model, so each has a group; the first takes what needs none."""
    rest = [p for p in missing if p.role is not Role.baseline]
    used = dict.fromkeys(p.sd.draft for p in rest if p.sd.draft)
    drafts: list[ModelSpec | None] = [*used] or [None]
    is_new = any(p.role is Role.baseline for p in missing)
    return [
        Group(
            baseline=baseline,
            points=tuple(p for p in rest if (p.sd.draft or drafts[0]) == draft),
            baseline_is_new=is_new and draft == drafts[0],
        )
        for draft in drafts
    ]


def engine_key(group: Group) -> EngineKey:
    """The draft model is part of the key: the baseline runs in the engine of its SD points."""
    point = group.baseline
    drafts = [p.sd.draft for p in group.points if p.sd.draft is not None]
    return EngineKey(
        engine=point.engine,
        target=point.target,
        draft=drafts[0] if drafts else None,
        hardware=point.hardware,
        device=point.device.value,
        threads=point.threads,
        experts_implementation=point.experts_implementation,
        layout=point.layout,
        simulation=point.simulation,
        engine_args=point.engine_args,
        cpu_fixes=point.cpu_fixes,
    )
