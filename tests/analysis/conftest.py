"""Sweeps written by hand: plausible repeats whose figures are known beforehand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moesd_dist.records import (
    DraftMethod,
    LayoutSpec,
    Measurement,
    ModelSource,
    ModelSpec,
    Repeat,
    Role,
    SdSpec,
    SweepPoint,
    WorkloadSpec,
)
from moesd_dist.theory.experts import expected_activated_experts

NOISE = (0.99, 1.0, 1.01, 0.995, 1.005)  # of the machine's speed, one a repeat
ROUNDS, LAYERS = 20, 4
SD = SdSpec(
    method=DraftMethod.draft_model,
    draft=ModelSpec(name="embedded_draft", source=ModelSource.embedded, location="draft"),
)
BASE = SweepPoint(
    engine="transformers",
    target=ModelSpec(name="embedded", source=ModelSource.embedded, location="target"),
    workload=WorkloadSpec(
        name="stdlib_code", prompt_tokens_min=16, prompt_tokens_max=64, output_tokens=64
    ),
    batch_size=1,
    gamma=0,
    role=Role.baseline,
)


def point(batch_size: int = 8, gamma: int = 3, **changes: object) -> SweepPoint:
    role = Role.sd if gamma else Role.baseline
    values = {"gamma": gamma, "sd": SD if gamma else SdSpec(), "role": role}
    return replace(BASE, batch_size=batch_size, **(values | changes))  # type: ignore[arg-type]


def repeat(
    of: SweepPoint, target_s: float, draft_s: float, accepted: float, experts: int
) -> Repeat:
    """ROUNDS rounds of equal length; `accepted` is the share of drafts."""
    sequence_rounds, gamma = ROUNDS * of.batch_size, of.gamma
    taken = round(accepted * sequence_rounds * gamma)
    layer_forwards = ROUNDS * LAYERS if experts else 0
    tokens = of.batch_size * (gamma + 1)
    seen = 0.9 * expected_activated_experts(experts, 8, tokens) if experts else 0.0
    return Repeat(
        seconds=ROUNDS * (target_s + gamma * draft_s),
        rounds=ROUNDS,
        tokens=sequence_rounds + taken,
        drafted=sequence_rounds * gamma,
        accepted=taken,
        accepted_per_position=(taken // gamma,) * gamma if gamma else (),
        sequence_rounds=sequence_rounds,
        draft_s=ROUNDS * gamma * draft_s,
        target_s=ROUNDS * target_s,
        reject_s=0.0,
        tokens_per_forward=gamma + 1,
        median_target_s=target_s,
        median_draft_s=gamma * draft_s,
        experts_seen=(round(seen * layer_forwards),),
        layer_forwards=layer_forwards,
    )


def measure(
    of: SweepPoint,
    *,
    efficiency: float = 0.8,
    repeats: int = 5,
    experts: int = 64,
    accepted: float = 0.6,
    **about: object,
) -> Measurement:
    """Decoding takes 10 ms a round; verification as much as the target efficiency says."""
    noise = NOISE[:repeats]
    values = {"host": "a-host", "device_name": "a-cpu", "num_experts": experts}
    values |= {"top_k": 8 if experts else 0} | about
    return Measurement(
        point=of,
        repeats=tuple(repeat(of, 0.01 / efficiency * n, 5e-4, accepted, experts) for n in noise),
        baseline=tuple(repeat(of.baseline, 0.01, 0.0, 0.0, experts) for _ in noise),
        **values,  # type: ignore[arg-type]
    )


HUMP = {1: 0.55, 2: 0.6, 4: 0.7, 8: 0.85, 16: 0.8, 32: 0.6}


def hump(**changes: object) -> list[Measurement]:
    """Rises to B=8, then falls, for both gammas; baselines come first, as in a sweep."""
    baselines = [measure(point(b, 0, **changes), efficiency=1.0) for b in HUMP]
    sd = [
        measure(point(b, gamma, **changes), efficiency=e / (1 + gamma / 8))
        for gamma in (1, 3)
        for b, e in HUMP.items()
    ]
    return [*baselines, *sd]


def control(batch_size: int, slower: float = 1.0) -> Measurement:
    of = point(batch_size, 0, role=Role.control)
    return measure(of, efficiency=1 / slower)


REPAIRED = {"cpu_fixes": True, "layout": LayoutSpec(ep_size=2)}
_SECONDS = ("seconds", "draft_s", "target_s", "reject_s", "median_target_s", "median_draft_s")


def untimed(batch_size: int = 8, gamma: int = 3, **about: object) -> Measurement:
    """As vLLM's repaired CPU build leaves it: counts, and no seconds."""
    measured = measure(point(batch_size, gamma, **REPAIRED), **about)  # type: ignore[arg-type]
    nothing = dict.fromkeys(_SECONDS, 0.0)
    return replace(
        measured,
        repeats=tuple(replace(r, **nothing) for r in measured.repeats),  # type: ignore[arg-type]
        baseline=tuple(replace(r, **nothing) for r in measured.baseline),  # type: ignore[arg-type]
        flags=("cpu_fixes", "untimed"),
    )


@pytest.fixture
def sweep() -> list[Measurement]:
    return hump()
