"""Measurements as the arrays that a fit reads; refuses what must not be fitted together."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from statistics import fmean, stdev

import numpy as np

from moesd_dist.records import LayoutSpec, Measurement, Repeat, Role, SdSpec, SweepPoint
from moesd_dist.sweep.statistics import speedup
from moesd_dist.theory.steps.data import StepData
from moesd_dist.workloads.acceptance_points import by_setting, profile_of, setting_of


def step_data(measured: Sequence[Measurement], *, across_ranks: bool = False) -> StepData:
    """The SD points among the measurements, in their order.

    With `across_ranks` they may be of several layouts, one rank and ranks that share the experts,
    and say on how many; without, a layout is what it is and every point counts as of one rank.

    Raises ValueError if there are none, if any is untimed, or if they are not of one target, draft,
    workload, device and layout (`apart` says what differs).
    """
    points = [m for m in measured if m.point.role is Role.sd and m.point.gamma]
    if not points:
        raise ValueError(
            f"a fit needs SD points, got {len(measured)} measurements without any; "
            "measure some gamma above 0 beside the baseline"
        )
    if across_ranks:
        _check_ranks(points)
    if names := apart([_on_one_rank(m) for m in points] if across_ranks else points):
        raise ValueError(
            f"points of several {' and '.join(names)} cannot be fitted as one; choose one with "
            "where=..., or fit each with each=" + names[0]
        )
    data = _arrays(points)
    ranks = [float(m.point.layout.dp_size if across_ranks else 1) for m in points]
    return replace(data, ranks=np.array(ranks))


def _on_one_rank(m: Measurement) -> Measurement:
    """Without what tells ranks from one rank: their number, and on whose behalf rank 0 spoke."""
    return replace(m, point=replace(m.point, layout=LayoutSpec()), host="", device_name="")


def _check_ranks(points: Sequence[Measurement]) -> None:
    for layout in dict.fromkeys(m.point.layout for m in points):
        if layout.tp_size > 1 or layout.dp_size != layout.ep_size:
            raise ValueError(
                "a fit across ranks is of one rank and of ranks that share the experts: tp_size 1 "
                f"and dp_size = ep_size; got {layout.tp_size}, {layout.dp_size} and "
                f"{layout.ep_size}; leave that layout out"
            )


def apart(measured: Sequence[Measurement]) -> list[str]:
    """In what the measurements differ although one fit must not mix it.

    Raises ValueError if any is untimed: a fit has no use for it, nor has a comparison of speedups.
    """
    if untimed := sum(not m.timed for m in measured):
        raise ValueError(
            f"untimed points have no speedup to fit or compare, {untimed} of {len(measured)} are: "
            "vLLM's CPU build was repaired for expert or data parallelism, where its seconds mean "
            "nothing; give sweeps without such points"
        )
    aspects: dict[str, list[Hashable]] = {
        "engines": [m.point.engine for m in measured],
        "targets": [m.point.target.anonymous for m in measured],
        "drafts": [_method(m.point.sd) for m in measured],
        "devices": [(m.point.hardware, m.host, m.device_name, m.point.threads) for m in measured],
        "layouts": [m.point.layout for m in measured],
    }
    return [name for name, values in aspects.items() if len(set(values)) > 1]


def _method(sd: SdSpec) -> SdSpec:
    """What decides a draft's time: not the rates of synthetic acceptance."""
    draft = sd.draft.anonymous if sd.draft else None
    return replace(sd, draft=draft, synthetic_acceptance=(), alpha=None)


def _arrays(points: Sequence[Measurement]) -> StepData:
    baselines = {b: float(i) for i, b in enumerate(dict.fromkeys(map(_baseline, points)))}
    longest = max(m.point.gamma for m in points)
    dispersion = {s: profile_of(found).dispersion for s, found in by_setting(points).items()}
    return StepData(
        batch_size=np.array([float(m.point.batch_size) for m in points]),
        gamma=np.array([float(m.point.gamma) for m in points]),
        top_k=np.array([float(m.top_k) for m in points]),
        group=np.array([baselines[_baseline(m)] for m in points]),
        context_tokens=np.array([fmean(r.mean_context for r in m.repeats) for m in points]),
        target_decode_s=np.array([_per_round(m.baseline, "target_s") for m in points]),
        target_verify_s=np.array([_per_round(m.repeats, "target_s") for m in points]),
        draft_step_s=np.array([_per_round(m.repeats, "draft_s") / m.point.gamma for m in points]),
        reject_s=np.array([_per_round(m.repeats, "reject_s") for m in points]),
        baseline_reject_s=np.array([_per_round(m.baseline, "reject_s") for m in points]),
        decode_experts=np.array([m.baseline_activated_experts for m in points]),
        verify_experts=np.array([m.activated_experts for m in points]),
        sequence_rounds=np.array(
            [float(sum(r.sequence_rounds for r in m.repeats)) for m in points]
        ),
        accepted=np.stack([_accepted(m, longest) for m in points]),
        dispersion=np.array([dispersion[setting_of(m)] for m in points]),
        speedup=np.array([speedup(m) for m in points]),
        speedup_spread=np.array([_spread(m) for m in points]),
    )


def _baseline(m: Measurement) -> tuple[SweepPoint, tuple[float, ...]]:
    """Which baseline a point was paired with, wherever its weights and prompts lie, and which run of it."""
    place = replace(m.point.baseline, target=m.point.target.anonymous, top_k=m.top_k or None)
    return place, tuple(r.seconds for r in m.baseline)


def _per_round(repeats: Sequence[Repeat], name: str) -> float:
    return float(sum(getattr(r, name) for r in repeats) / sum(r.rounds for r in repeats))


def _accepted(m: Measurement, longest: int) -> np.ndarray:
    counts = [
        sum(column) for column in zip(*(r.accepted_per_position for r in m.repeats), strict=True)
    ]
    return np.array(counts + [0] * (longest - len(counts)), dtype=np.float64)


def _spread(m: Measurement) -> float:
    """Standard error of the mean log ratio; 0 for a single repeat."""
    logs = [math.log(ratio) for ratio in m.paired_speedups()]
    return stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0
