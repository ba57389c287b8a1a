"""What points take by measurements of their like: exactly, or from the nearest batch sizes and gammas."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from moesd_dist.records import LayoutSpec, Measurement, ModelSpec, Protocol, SweepPoint
from moesd_dist.sweep.schedule.pace import Pace, prompts, window_tokens

K = TypeVar("K", bound=Hashable)

# Seconds grow with these powers of the batch size and of gamma + 1 where measurements are too few
# to say; the weight is that of a measurement one e-fold away among those that weigh most.
PRIOR_POWERS = (0.5, 0.2)
PRIOR_WEIGHT = 0.03
REACH = math.log(2.0)  # a measurement at half or twice the batch size weighs a quarter


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where seconds compare: they are of one model and engine on one kind of device."""

    engine: str
    target: ModelSpec
    hardware: str
    threads: int
    experts_implementation: str
    layout: LayoutSpec
    engine_args: tuple[tuple[str, str], ...]


def place_of(point: SweepPoint) -> Place:
    return Place(
        engine=point.engine,
        target=point.target.anonymous,
        hardware=point.hardware,
        threads=point.threads,
        experts_implementation=point.experts_implementation,
        layout=point.layout,
        engine_args=point.engine_args,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measured point as rates that other protocols and prompts share."""

    point: SweepPoint
    token_s: float  # of a sequence in a full batch: the window's seconds over its tokens each
    round_s: float
    tail_token_s: float  # of a sequence in a batch that runs out
    prompt_s: float  # prefill, a prompt


def sample_of(m: Measurement) -> Sample | None:
    """None where seconds mean nothing."""
    tokens, rounds = sum(r.tokens for r in m.repeats), sum(r.rounds for r in m.repeats)
    if m.point.simulated or not m.timed or not tokens or not rounds:
        return None
    batch, seconds = m.point.batch_size, sum(r.seconds for r in m.repeats)
    token_s = seconds * batch / tokens
    tail = sum(r.end_to_end_tokens for r in m.repeats) / batch
    count = sum(r.prompts for r in m.repeats)
    return Sample(
        point=m.point,
        token_s=token_s,
        round_s=seconds / rounds,
        tail_token_s=sum(r.end_to_end_s for r in m.repeats) / tail if tail else token_s,
        prompt_s=sum(r.prefill_s for r in m.repeats) / count if count else 0.0,
    )


class EarlierRuns:
    """Reads what was measured when it is first asked: a sweep that is finished never asks."""

    source = "earlier runs"

    def __init__(self, read: Callable[[], Iterable[Measurement]]) -> None:
        self._read = read

    @cached_property
    def samples(self) -> list[Sample]:
        return list(filter(None, map(sample_of, self._read())))

    @cached_property
    def _exact(self) -> dict[SweepPoint, list[Sample]]:
        return _by(lambda s: _bare(s.point), self.samples)

    def pace(self, point: SweepPoint) -> Pace | None:
        return _pace(self._exact.get(_bare(point), []), point)


class ScaledRuns:
    """The same measurements, for points that lie between them or beyond."""

    source = "earlier runs of other batch sizes or gammas"

    def __init__(self, earlier: EarlierRuns) -> None:
        self._earlier = earlier

    @cached_property
    def _by_place(self) -> dict[Place, list[Sample]]:
        return _by(lambda s: place_of(s.point), self._earlier.samples)

    def pace(self, point: SweepPoint) -> Pace | None:
        return _pace(_like(self._by_place.get(place_of(point), []), point), point)


def _by(key: Callable[[Sample], K], samples: Iterable[Sample]) -> dict[K, list[Sample]]:
    found: dict[K, list[Sample]] = {}
    for sample in samples:
        found.setdefault(key(sample), []).append(sample)
    return found


def _bare(point: SweepPoint) -> SweepPoint:
    """Without the protocol, whose counts only multiply, and without the folders of files."""
    draft = point.sd.draft
    sd = replace(point.sd, draft=draft.anonymous) if draft else point.sd
    return replace(point, protocol=Protocol(), target=point.target.anonymous, sd=sd)


def _pace(near: Sequence[Sample], point: SweepPoint) -> Pace | None:
    if not near:
        return None

    def value(name: str) -> float:
        return _scaled([(s.point, getattr(s, name)) for s in near], point)

    return Pace(
        window_s=value("token_s") * window_tokens(point) / point.batch_size,
        round_s=value("round_s"),
        end_to_end_s=value("tail_token_s") * point.workload.output_tokens,
        prefill_s=value("prompt_s") * prompts(point),
    )


def _like(samples: Sequence[Sample], point: SweepPoint) -> list[Sample]:
    """Of its SD method and, where there are some, of its top_k; baselines tell of any method.

    Nothing where only baselines are known: drafting would be missing.
    """
    drafted = [s for s in samples if not s.point.gamma or _drafts_alike(s.point, point)]
    if not any(bool(s.point.gamma) is bool(point.gamma) for s in drafted):
        return []
    same = [s for s in drafted if s.point.top_k == point.top_k]
    enough = any(bool(s.point.gamma) is bool(point.gamma) for s in same)
    return same if enough else drafted


def _drafts_alike(a: SweepPoint, b: SweepPoint) -> bool:
    return _bare(a).sd == _bare(b).sd


def _scaled(samples: Sequence[tuple[SweepPoint, float]], point: SweepPoint) -> float:
    """Log-linear in batch size and gamma + 1, by least squares in which near measurements count most."""
    kept = [(p, seconds) for p, seconds in samples if seconds > 0.0]
    if not kept:
        return 0.0
    away = np.array([_away(p, point) for p, _ in kept])
    logs = np.log([seconds for _, seconds in kept])
    weight = (1.0 + (away**2).sum(axis=1) / REACH**2) ** -2.0
    weight /= weight.max()
    columns = np.column_stack([np.ones(len(kept)), away])
    prior = np.diag([0.0, PRIOR_WEIGHT, PRIOR_WEIGHT])
    left = columns.T @ (columns * weight[:, None]) + prior
    right = columns.T @ (weight * logs) + prior @ np.array([0.0, *PRIOR_POWERS])
    return float(np.exp(np.linalg.solve(left, right)[0]))


def _away(measured: SweepPoint, wanted: SweepPoint) -> tuple[float, float]:
    return (
        math.log(measured.batch_size / wanted.batch_size),
        math.log((measured.gamma + 1) / (wanted.gamma + 1)),
    )
