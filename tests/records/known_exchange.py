"""Exchanges written by hand: two layers, whatever a test does not choose the same on every rank."""

from __future__ import annotations

from collections.abc import Sequence

from moesd_dist.records import Exchange, RankTrace

LAYERS = 2
FORWARDS = 4
SECONDS = {  # of one forward, both layers together
    "pack_s": 0.002,
    "dispatch_s": 0.003,
    "expert_s": 0.010,
    "combine_s": 0.001,
    "wait_arrival_s": 0.002,
    "wait_expert_s": 0.002,
}
REST_S = 0.020


def trace(rank: int, *, load: int = 96, activated: int = 20, **seconds: float) -> RankTrace:
    """Load, experts and rows are of one forward and layer, seconds of one forward; the first layer
    has a quarter of them."""
    phases = SECONDS | seconds
    return RankTrace(
        rank=rank,
        host=f"node{rank // 2}",
        gate_tokens=12 * FORWARDS,
        sent_rows=(9 * FORWARDS,) * LAYERS,
        received_rows=(9 * FORWARDS,) * LAYERS,
        sent_bytes=(9000 * FORWARDS,) * LAYERS,
        received_bytes=(9000 * FORWARDS,) * LAYERS,
        activated_experts=(activated * FORWARDS,) * LAYERS,
        load=(load * FORWARDS,) * LAYERS,
        target_s=FORWARDS * (sum(phases.values()) + REST_S),
        weight_bytes=1000 + rank,
        expert_bytes=800 + rank,
        **{name: (0.25 * FORWARDS * s, 0.75 * FORWARDS * s) for name, s in phases.items()},
    )


def exchange(traces: Sequence[RankTrace]) -> Exchange:
    """The busiest rank is the same in every forward and layer."""
    return Exchange(
        ranks=tuple(traces),
        forwards=FORWARDS,
        max_activated_experts=_busiest([t.activated_experts for t in traces]),
        max_load=_busiest([t.load for t in traces]),
    )


def _busiest(ranks: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(max, zip(*ranks, strict=True)))
