"""Sweeps whose ranks share experts: the seconds of conftest's repeats, split into phases by hand."""

from __future__ import annotations

from dataclasses import replace

from moesd_dist.records import Exchange, LayoutSpec, Measurement, RankTrace, Repeat
from tests.analysis.conftest import LAYERS, ROUNDS, measure, point

SHARES = {  # of a target forward, but for experts and waiting for them, which have 0.5 together
    "pack_s": 0.05,
    "dispatch_s": 0.12,
    "combine_s": 0.08,
    "wait_arrival_s": 0.05,
}
EXPERTS = 0.5
LOAD = 80


def shared(
    batch_size: int = 8, gamma: int = 3, ranks: int = 4, *, skew: float = 0.2, **layout: object
) -> Measurement:
    """Experts of rank r take 1 - skew * r / ranks of the longest; rank 0 is the busiest."""
    sizes = {"dp_size": ranks, "ep_size": ranks} | layout
    of = point(batch_size, gamma, layout=LayoutSpec(**sizes))  # type: ignore[arg-type]
    efficiency = 0.6 + 0.05 * ranks / 4 if gamma else 1.0
    found = measure(of, efficiency=efficiency)
    return replace(
        found,
        repeats=tuple(_exchanging(r, ranks, skew) for r in found.repeats),
        baseline=tuple(_exchanging(r, ranks, skew / 2) for r in found.baseline),
    )


def layouts(*, batch_sizes: tuple[int, ...] = (2, 8, 32)) -> list[Measurement]:
    """Two gammas on 1, 2 and 4 ranks; the largest layout comes first."""
    return [
        shared(b, gamma, ranks) for ranks in (4, 1, 2) for gamma in (0, 1, 3) for b in batch_sizes
    ]


def _exchanging(repeat: Repeat, ranks: int, skew: float) -> Repeat:
    traces = tuple(_trace(rank, ranks, skew, repeat) for rank in range(ranks))
    busiest = traces[0]
    return replace(
        repeat,
        exchange=Exchange(
            ranks=traces,
            forwards=ROUNDS,
            max_activated_experts=busiest.activated_experts,
            max_load=busiest.load,
        ),
    )


def _trace(rank: int, ranks: int, skew: float, repeat: Repeat) -> RankTrace:
    busy = EXPERTS * (1 - skew * rank / ranks)
    shares = SHARES | {"expert_s": busy, "wait_expert_s": EXPERTS - busy}
    if ranks == 1:
        shares = {"expert_s": EXPERTS}
    load = round(ROUNDS * LOAD * (1 - skew * rank / ranks))
    rows = ROUNDS * 8 * (ranks > 1)
    return RankTrace(
        rank=rank,
        host=f"host{rank}",
        gate_tokens=ROUNDS * 8,
        sent_rows=(rows,) * LAYERS,
        sent_bytes=(1000 * rows,) * LAYERS,
        activated_experts=(load // 4,) * LAYERS,
        load=(load,) * LAYERS,
        target_s=repeat.target_s,
        weight_bytes=4 << 20,
        expert_bytes=3 << 20,
        **{n: (s * repeat.target_s / LAYERS,) * LAYERS for n, s in shares.items()},
    )
