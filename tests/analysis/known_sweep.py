"""Sweeps whose seconds follow a known model of step times, with noise that a group shares or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from moesd_dist.models.counts import counts_of
from moesd_dist.records import Measurement, Repeat, SweepPoint
from moesd_dist.theory.steps.model import Grid, RoundSeconds
from moesd_dist.tracking.mlflow import MlflowTracker
from moesd_dist.tracking.provenance import Provenance
from tests.analysis.conftest import SD, point
from tests.theory.known_steps import MODEL

BATCH_SIZES, GAMMAS = (1, 2, 4, 8, 16, 32), (1, 3)
ROUNDS, REPEATS, CONTEXT, ALPHA = 50, 5, 60.0, 0.7
KNOWN = replace(MODEL, target=counts_of(point().target), draft=counts_of(SD.draft))  # type: ignore[arg-type]


def sweep(
    batch_sizes: Sequence[int] = BATCH_SIZES,
    gammas: Sequence[int] = GAMMAS,
    *,
    noise: float = 0.003,
    slower: float = 1.0,
    **changes: object,
) -> list[Measurement]:
    """SD points by batch size and gamma; those of one batch size share their baseline.

    Verification takes `slower` times as long as the model says.
    """
    random = np.random.default_rng(0)
    given, found = {"top_k": 8} | changes, []
    for size in batch_sizes:
        baseline = _repeats(point(size, 0, **given), 1.0, noise, random)
        for gamma in gammas:
            of = point(size, gamma, **given)
            repeats = _repeats(of, slower, noise, random)
            found.append(
                Measurement(
                    point=of,
                    repeats=repeats,
                    baseline=baseline,
                    top_k=of.top_k or 8,
                    num_experts=64,
                    host="a-host",
                )
            )
    return found


def store(uri: str, name: str, measured: Sequence[Measurement], command: str = "") -> None:
    """As a finished sweep in MLflow."""
    tracker = MlflowTracker(uri, "moesd-dist", Provenance(command=command, git_commit="c0ffee", packages={}), "a: 1\n")  # fmt: skip
    tracker.open(name, name, [m.point for m in measured])
    for m in measured:
        tracker.record(m, {})
    tracker.close("finished")


def _repeats(
    of: SweepPoint, slower: float, noise: float, random: np.random.Generator
) -> tuple[Repeat, ...]:
    grid = Grid(batch_size=of.batch_size, gamma=of.gamma, top_k=8, context_tokens=CONTEXT)
    times = KNOWN.round_seconds(grid)
    scales = np.exp(noise * random.standard_normal(REPEATS))
    return tuple(_repeat(of, times, slower * float(scale)) for scale in scales)


def _repeat(of: SweepPoint, times: RoundSeconds, scale: float) -> Repeat:
    target_s = ROUNDS * scale * times.target_verify_s.item()
    draft_s = ROUNDS * of.gamma * times.draft_step_s.item()
    reject_s = ROUNDS * times.reject_s.item()
    sequence_rounds = ROUNDS * of.batch_size
    accepted = tuple(round(sequence_rounds * ALPHA**i) for i in range(1, of.gamma + 1))
    return Repeat(
        seconds=target_s + draft_s + reject_s,
        rounds=ROUNDS,
        tokens=sequence_rounds + sum(accepted),
        drafted=sequence_rounds * of.gamma,
        accepted=sum(accepted),
        accepted_per_position=accepted,
        sequence_rounds=sequence_rounds,
        draft_s=draft_s,
        target_s=target_s,
        reject_s=reject_s,
        tokens_per_forward=of.gamma + 1,
        median_target_s=target_s / ROUNDS,
        median_draft_s=draft_s / ROUNDS,
        experts_seen=(round(1000 * times.verify_experts.item()),),
        layer_forwards=1000,
        mean_context=CONTEXT,
    )
