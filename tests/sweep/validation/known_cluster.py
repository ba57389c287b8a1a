"""An engine over ranks whose every second follows a written rule, on routing that is really drawn."""

# Nothing here is shared with the predictor: tokens choose experts by weighted draws without
# replacement, and seconds are sums of a few products. A forecast has to find the rule from one rank.

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moesd_dist.models.expert_placement import placement_of
from moesd_dist.records import (
    DraftMethod,
    Exchange,
    Infeasible,
    LayoutSpec,
    ModelSource,
    ModelSpec,
    Protocol,
    RankTrace,
    Repeat,
    SdSpec,
    SweepPoint,
    WorkloadSpec,
)
from moesd_dist.records.calibration import ALL_TO_ALL, Calibration, CollectiveTimes, RankRates
from moesd_dist.sweep.arrival import Arrival
from moesd_dist.sweep.driver import MakeEngine
from moesd_dist.sweep.grouping import Group, engine_key
from moesd_dist.sweep.pairing import LoadLimit, measure_group
from moesd_dist.theory.counts import ModelCounts
from tests.sweep.validation.known_replicas import deal

LAYERS, EXPERTS, TOP_K, HIDDEN = 3, 16, 2, 64
COUNTS = ModelCounts(
    num_layers=LAYERS,
    hidden_size=HIDDEN,
    vocab_size=512,
    streamed_non_expert_params=2_000_000,
    kv_values_per_token=128,
    num_moe_layers=LAYERS,
    num_experts=EXPERTS,
    top_k=TOP_K,
    expert_params=1_000_000,
)
DRAFT_COUNTS = ModelCounts(
    num_layers=1,
    hidden_size=32,
    vocab_size=512,
    streamed_non_expert_params=100_000,
    kv_values_per_token=64,
)
FORWARDS = 60  # of a repeat
CONTEXT = 100.0
ACCEPTED = 0.6  # of drafts whose turn comes
LATENCY_S, BYTES_PER_S = 200e-6, 1e9  # of an all-to-all

TARGET = ModelSpec(name="target", source=ModelSource.embedded, location="target")
DRAFT = ModelSpec(name="draft", source=ModelSource.embedded, location="draft")


def point(**changes: Any) -> SweepPoint:
    fields: dict[str, Any] = {
        "engine": "transformers",
        "target": TARGET,
        "workload": WorkloadSpec(
            name="stdlib_code", prompt_tokens_min=8, prompt_tokens_max=8, output_tokens=8
        ),
        "batch_size": 4,
        "gamma": 3,
        "sd": SdSpec(method=DraftMethod.draft_model, draft=DRAFT),
        "protocol": Protocol(repeats=4),
    }
    return SweepPoint(**(fields | changes))


def over(ranks: int) -> LayoutSpec:
    return LayoutSpec(dp_size=ranks, ep_size=ranks) if ranks > 1 else LayoutSpec()


def rest_s(sequences: float, each: int) -> float:
    """Of a rank with so many sequences: all but its experts."""
    return 2e-3 + 40e-6 * sequences * each


def expert_s(activated: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Of one layer."""
    return 100e-6 * activated + 4e-6 * pairs


def exchange_s(row_bytes: float) -> float:
    """Of an all-to-all in which a rank hands over so much."""
    return LATENCY_S + row_bytes / BYTES_PER_S


def calibration(ranks: Sequence[int] = (2, 4)) -> Calibration:
    """What somebody who timed this cluster would have written down."""
    sizes = tuple(64 * 4**step for step in range(8))
    seconds = tuple(exchange_s(size) for size in sizes)
    rates = [RankRates(ranks=1, nodes=1, host="here", read_bytes_per_s=1e10, gemm_flops=1e11)]
    rates += [
        RankRates(ranks=n, nodes=1, host="here", read_bytes_per_s=1e10, gemm_flops=1e11)
        for n in ranks
    ]
    return Calibration(
        measured="2026-01-01T00:00:00+00:00",
        threads=1,
        collectives=tuple(
            CollectiveTimes(
                collective=ALL_TO_ALL,
                ranks=n,
                nodes=1,
                row_bytes=sizes,
                seconds=seconds,
                low_s=tuple(0.97 * s for s in seconds),
                high_s=tuple(1.03 * s for s in seconds),
            )
            for n in ranks
        ),
        rates=tuple(rates),
    )


@dataclass
class KnownEngine:
    """`dearer` is how many times longer collectives take than the calibration says."""

    dearer: float = 1.0
    noise: float = 0.002
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def describe(self) -> Mapping[str, str]:
        return {"host": "here", "device_name": "rule"}

    def infeasible(self, point: SweepPoint) -> Infeasible | None:
        return None

    def together(self, points: Sequence[SweepPoint]) -> bool:
        return True

    def warm_up(self, point: SweepPoint) -> None: ...

    def routing(self, point: SweepPoint) -> tuple[int, int]:
        return EXPERTS, TOP_K

    def close(self) -> None: ...

    def measure(self, point: SweepPoint, repeat: int) -> Repeat:
        rng = np.random.default_rng([repeat, next(self._numbers)])
        ranks, each = point.layout.dp_size, point.gamma + 1
        chosen = [_chosen(rng, layer, point.batch_size * each) for layer in range(LAYERS)]
        load = np.stack([_loads(own) for own in chosen])
        slots, reached = self._placed(point.layout, chosen, load)
        by_rank = slots.reshape(LAYERS, FORWARDS, ranks, -1)
        activated, pairs = (by_rank > 0).sum(-1), by_rank.sum(-1)  # [layer, forward, rank]
        share = -(-point.batch_size // ranks)
        experts = expert_s(activated, pairs)
        rows = share * each * reached
        sent = self.dearer * (
            exchange_s(8 * (ranks - 1)) + exchange_s(rows * (2 * HIDDEN + 8 * TOP_K))
        )
        back = self.dearer * exchange_s(rows * 2 * HIDDEN)
        links_s = 0.0 if ranks == 1 else LAYERS * (sent + back)
        busiest_s = experts.max(-1).sum(0).mean()
        pace = np.exp(self.noise * rng.standard_normal())
        target_s = pace * (rest_s(share, each) + busiest_s + links_s)
        traces = tuple(
            RankTrace(
                rank=r,
                gate_tokens=share * each * FORWARDS,
                activated_experts=tuple(activated[:, :, r].sum(1).tolist()),
                load=tuple(pairs[:, :, r].sum(1).tolist()),
                expert_s=tuple((pace * experts[:, :, r].sum(1)).tolist()),
                dispatch_s=() if ranks == 1 else (pace * sent * FORWARDS,) * LAYERS,
                combine_s=() if ranks == 1 else (pace * back * FORWARDS,) * LAYERS,
                target_s=target_s * FORWARDS,
            )
            for r in range(ranks)
        )
        return self._repeat(point, rng, target_s, pace, load, Exchange(
            ranks=traces,
            forwards=FORWARDS,
            max_activated_experts=tuple(activated.max(-1).sum(1).tolist()),
            max_load=tuple(pairs.max(-1).sum(1).tolist()),
        ))  # fmt: skip

    def _placed(
        self, layout: LayoutSpec, chosen: Sequence[np.ndarray], load: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """Tokens of each slot [layer, forward, slot], and other ranks that a token reaches."""
        ranks, tokens = layout.dp_size, chosen[0].shape[1]
        if not layout.redundant_experts:
            return load, (1.0 - _missed(ranks)) * (ranks - 1)
        placement = placement_of(layout, layers=LAYERS, num_experts=EXPERTS)
        rows = placement.physical_to_logical
        found = [deal(own, row, ranks) for own, row in zip(chosen, rows, strict=True)]
        sent = np.mean([rows for _, rows in found]) / (tokens / ranks)
        return np.stack([slots for slots, _ in found]), float(sent)

    def _repeat(
        self,
        point: SweepPoint,
        rng: np.random.Generator,
        target_s: float,
        pace: float,
        load: np.ndarray,
        exchange: Exchange,
    ) -> Repeat:
        gamma, share = point.gamma, -(-point.batch_size // point.layout.dp_size)
        rows = FORWARDS * point.batch_size
        accepted = [rows]
        for _ in range(gamma):
            accepted.append(int(rng.binomial(accepted[-1], ACCEPTED)))
        draft_s = pace * gamma * (300e-6 + 5e-6 * share)
        reject_s = pace * (50e-6 + 1e-6 * share * (gamma + 1))
        return Repeat(
            seconds=FORWARDS * (target_s + draft_s + reject_s),
            rounds=FORWARDS,
            tokens=sum(accepted),
            drafted=rows * gamma,
            accepted=sum(accepted[1:]),
            accepted_per_position=tuple(accepted[1:]),
            sequence_rounds=rows,
            draft_s=FORWARDS * draft_s,
            target_s=FORWARDS * target_s,
            reject_s=FORWARDS * reject_s,
            tokens_per_forward=gamma + 1,
            median_target_s=target_s,
            median_draft_s=draft_s,
            experts_seen=tuple((load > 0).sum((1, 2)).tolist()),
            layer_forwards=LAYERS * FORWARDS,
            expert_load=tuple(tuple(row) for row in load.sum(1).tolist()),
            mean_context=CONTEXT,
            exchange=exchange,
        )


def popularity(layer: int) -> np.ndarray:
    """Of each expert; the first ones are popular, so that rank 0 is."""
    return np.exp(-np.arange(EXPERTS) / (6.0 + layer))


def _chosen(rng: np.random.Generator, layer: int, tokens: int) -> np.ndarray:
    """[forward, token, top_k]."""
    keys = rng.exponential(size=(FORWARDS, tokens, EXPERTS)) / popularity(layer)
    return np.argsort(keys, axis=-1)[..., :TOP_K]


def _loads(chosen: np.ndarray) -> np.ndarray:
    """[forward, expert]."""
    flat = chosen.reshape(FORWARDS, -1)
    return np.stack([np.bincount(row, minlength=EXPERTS) for row in flat])


def _missed(ranks: int) -> float:
    """A uniform token's chance of having no expert on a given rank."""
    held = EXPERTS // ranks
    return ((EXPERTS - held) * (EXPERTS - held - 1)) / (EXPERTS * (EXPERTS - 1))


class DirectExecutor:
    """Measures every group in this process, whatever its layout; `before` sees each group first."""

    def __init__(self, make: MakeEngine, before: Callable[[Group], None] = lambda _: None) -> None:
        self._make, self._before = make, before
        self.measured: list[str] = []

    def run(self, todo: Sequence[Group]) -> Iterator[Arrival]:
        for group in todo:
            self._before(group)
            self.measured += [p.point_id for p in group.wanted]
            outcomes = measure_group(self._make(engine_key(group)), group, LoadLimit())
            yield Arrival(outcomes=tuple(outcomes))

    def close(self) -> None: ...
