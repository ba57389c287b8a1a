"""A group's baseline and points are measured in turn, so that all of them see the same machine."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from moesd_dist.ports import Engine
from moesd_dist.records import Failed, Infeasible, Measurement, Outcome, Repeat, SweepPoint
from moesd_dist.records.neighbours import Neighbours
from moesd_dist.sweep.grouping import Group
from moesd_dist.sweep.quiet import Look, nobody, until_quiet

FOREIGN_GPU = "foreign_gpu"  # a flag, and under it in `machine` who they are


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLimit:
    """What others may do on the machine: keep `cores` busy during a repeat, and nothing on our GPUs.

    Beyond it a point is flagged, or refused; `wait_s` is how long a group waits for quiet before.
    `look` asks the machine it runs on.
    """

    cores: float = 0.5
    refuse: bool = False
    wait_s: float = 0.0
    look: Look = nobody


def measure_group(
    engine: Engine, group: Group, limit: LoadLimit, before: Neighbours | None = None
) -> list[Outcome]:
    """Interleaves repeats of the baseline and its points; one outcome for each wanted point.

    `before` is who is there now, where that was found out already: the ranks of an engine must
    agree on it, or some of them would measure and wait for the others.
    """
    impossible = [found for p in group.wanted if (found := engine.infeasible(p)) is not None]
    excluded = {found.point.point_id for found in impossible}
    points = [p for p in group.points if p.point_id not in excluded]
    if group.baseline.point_id in excluded or not (points or group.baseline_is_new):
        return [_because_of_baseline(p, impossible) for p in group.wanted]
    before = before or who_is_there(group, limit)
    if limit.refuse and before.on_gpu:
        left = [p for p in group.wanted if p.point_id not in excluded]
        return [*impossible, *(_crowded(p, before.on_gpu) for p in left)]
    repeats, broken = _interleave(engine, group.baseline, points)
    excluded |= broken.keys()
    members = [p for p in group.wanted if p.point_id not in excluded]
    others = tuple(dict.fromkeys(before.on_gpu + limit.look(group.baseline.device, 0.0).on_gpu))
    about = engine.describe()
    measured = [_outcome(engine, p, repeats, group.baseline, limit, others, about) for p in members]
    return [*impossible, *broken.values(), *measured]


def who_is_there(group: Group, limit: LoadLimit) -> Neighbours:
    """Waits for quiet first, if the limit says so."""
    device = group.baseline.device
    return until_quiet(limit.look, device, cores=limit.cores, patience_s=limit.wait_s)


def _crowded(point: SweepPoint, others: Sequence[str]) -> Failed:
    return Failed(
        point=point,
        reason=f"a GPU is measured alone, but {'; '.join(others)}; free it, choose another with "
        "CUDA_VISIBLE_DEVICES, or set hardware.foreign_load=flag",
    )


def failure(point: SweepPoint, error: Exception) -> Failed:
    """What broke; to be called while the error is being handled."""
    reason = f"{type(error).__name__}: {error}"
    return Failed(point=point, reason=reason, log=traceback.format_exc())


def _interleave(
    engine: Engine, baseline: SweepPoint, points: list[SweepPoint]
) -> tuple[dict[str, list[Repeat]], dict[str, Failed]]:
    """Repeat by repeat, forwards and backwards in turn, so that a drift of the machine cancels.

    Where memory holds one engine at a time, half of a point's repeats run before the next point's:
    there and back again, with as few restarts as that takes. A point that breaks (a large gamma out of memory, say) leaves the group and the others go on; a
    baseline that breaks takes the group with it.
    """
    order = [baseline, *points]
    repeats: dict[str, list[Repeat]] = {point.point_id: [] for point in order}
    broken: dict[str, Failed] = {}
    count = baseline.protocol.repeats
    steps = _turns(order, count) if engine.together(order) else _visits(order, count)
    for point, turn in steps:
        if point.point_id in broken:
            continue
        try:
            _step(engine, point, turn, repeats)
        except Exception as error:
            if point == baseline:
                raise
            broken[point.point_id] = failure(point, error)
    return repeats, broken


_Turns = list[tuple[SweepPoint, int | None]]
"""What to measure and which repeat of it; None is a warm-up."""


def _turns(order: list[SweepPoint], repeats: int) -> _Turns:
    turns: _Turns = [(point, None) for point in order]
    for repeat in range(repeats):
        turns += [(point, repeat) for point in (order if repeat % 2 == 0 else order[::-1])]
    return turns


def _visits(order: list[SweepPoint], repeats: int) -> _Turns:
    half = (repeats + 1) // 2
    there = [(point, range(half)) for point in order]
    back = [(point, range(half, repeats)) for point in order[::-1]]
    visits = [(point, span) for point, span in there + back if span]
    return [(point, turn) for point, span in visits for turn in (None, *span)]


def _step(
    engine: Engine, point: SweepPoint, repeat: int | None, repeats: dict[str, list[Repeat]]
) -> None:
    if repeat is None:
        engine.warm_up(point)
    else:
        repeats[point.point_id].append(engine.measure(point, repeat))


def _outcome(
    engine: Engine,
    point: SweepPoint,
    repeats: dict[str, list[Repeat]],
    baseline: SweepPoint,
    limit: LoadLimit,
    others: Sequence[str],
    about: Mapping[str, str],
) -> Outcome:
    own, base = tuple(repeats[point.point_id]), tuple(repeats[baseline.point_id])
    foreign = max(repeat.foreign_cpu for repeat in (*own, *base))
    if foreign > limit.cores and limit.refuse:
        return Failed(
            point=point,
            reason=f"others kept {foreign:.1f} cores busy while it was measured, the limit is "
            f"{limit.cores}; rerun on a quiet machine or set hardware.foreign_load=flag",
        )
    if others and limit.refuse:
        return _crowded(point, others)
    num_experts, top_k = engine.routing(point)
    flags = {
        "no_routing": num_experts > 0 and not any(repeat.layer_forwards for repeat in own),
        "foreign_load": foreign > limit.cores,
        FOREIGN_GPU: bool(others),
        "engine_restarts": any(repeat.engine_starts for repeat in (*own, *base)),
        "cpu_fixes": point.cpu_fixes,
        "untimed": point.untimed,
    }
    machine = _under("machine.", about) | ({FOREIGN_GPU: "; ".join(others)} if others else {})
    return Measurement(
        point=point,
        repeats=own,
        baseline=base,
        num_experts=num_experts,
        top_k=top_k,
        host=about.get("host", ""),
        device_name=about.get("device_name", ""),
        experts_path=about.get("experts_path", ""),
        flags=tuple(flag for flag, holds in flags.items() if holds),
        versions=_under("version.", about),
        machine=machine,
    )


def _under(prefix: str, about: Mapping[str, str]) -> dict[str, str]:
    return {k.removeprefix(prefix): text for k, text in about.items() if k.startswith(prefix)}


def _because_of_baseline(point: SweepPoint, impossible: list[Infeasible]) -> Infeasible:
    own = [found for found in impossible if found.point == point]
    return own[0] if own else replace(impossible[0], point=point)
