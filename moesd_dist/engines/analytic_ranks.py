"""What the analytic engine knows of ranks that share experts: their links, and what each of them does."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from moesd_dist.engines.analytic_rounds import LENGTHS, OneRound, Rounds, rows
from moesd_dist.models.counts import known_shape
from moesd_dist.models.shape import bytes_per_value
from moesd_dist.records import Exchange, LayoutSpec, ModelSpec, RankTrace, SimulationSpec
from moesd_dist.theory.devices.device import DeviceFigures
from moesd_dist.theory.expert_parallel.collectives import Link, Links
from moesd_dist.theory.expert_parallel.dispatch import Dispatch
from moesd_dist.theory.expert_parallel.step import (
    EpGrid,
    EpModel,
    EpSeconds,
    RankWork,
)
from moesd_dist.theory.steps.model import Grid, StepModel

# vLLM's kernels for decoding send a row for each expert; what is not named here, once a rank.
DISPATCHES = {
    "allgather_reducescatter": Dispatch.TO_ALL,
    "naive": Dispatch.TO_ALL,
    "pplx": Dispatch.ONCE_AN_EXPERT,
    "deepep_low_latency": Dispatch.ONCE_AN_EXPERT,
}


def ranks_model(step: StepModel, layout: LayoutSpec, simulation: SimulationSpec) -> EpModel:
    """`step` is of one rank; ValueError for a dense target or where no link is known."""
    return EpModel(
        step=step,
        cost=links_of(DeviceFigures(**dict(simulation.device)), layout, "this hardware"),
        dispatch=DISPATCHES.get(layout.all2all_backend, Dispatch.ONCE_A_RANK),
        hidden_share=simulation.hidden_share,
    )


def links_of(device: DeviceFigures, layout: LayoutSpec, hardware: str) -> Links:
    """Ranks over as many nodes as the layout says, or as few as hold them.

    Raises ValueError, naming the hardware, where nodes have no known link or are too small.
    """
    ranks, most = layout.dp_size, int(device.devices_per_node or layout.dp_size)
    node = min(ranks, most) if layout.nodes == 1 else math.ceil(ranks / layout.nodes)
    if node > most:
        raise ValueError(
            f"a node of hardware {hardware} has {most} devices, layout.nodes {layout.nodes} puts "
            f"{node} ranks on each; use layout.nodes={math.ceil(ranks / most)}"
        )
    inter = _inter(device)
    if node < ranks and inter is None:
        raise ValueError(
            f"hardware {hardware} has no inter_link_bytes_per_s and inter_link_latency_s, {ranks} "
            f"ranks on nodes of {node} need them; give hardware.figures.inter_link_..."
        )
    intra = Link(latency_s=device.link_latency_s, bytes_per_s=device.link_bytes_per_s)
    return Links(intra=intra, inter=inter, ranks_per_node=node)


def _inter(device: DeviceFigures) -> Link | None:
    latency_s, bytes_per_s = device.inter_link_latency_s, device.inter_link_bytes_per_s
    if latency_s is None or bytes_per_s is None:
        return None
    return Link(latency_s=latency_s, bytes_per_s=bytes_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanRank:
    """The rank that stands for all in one verification: counts are of a layer, seconds of all."""

    gate_tokens: float
    rows: float
    moved_bytes: float
    activated_experts: float
    load: float
    max_activated_experts: float  # of the busiest rank
    max_load: float
    dispatch_s: float
    expert_s: float
    combine_s: float
    wait_expert_s: float
    target_s: float


class SharedExperts:
    """The part of the engine that a layout of several ranks adds."""

    def __init__(
        self, step: StepModel, target: ModelSpec, layout: LayoutSpec, simulation: SimulationSpec
    ) -> None:
        self._model, self._ranks = ranks_model(step, layout, simulation), layout.dp_size
        self._weights = rank_bytes(target, layout.dp_size)
        self.rounds = Rounds(step.target.top_k, self._evaluated)

    def exchange(self, mean: MeanRank, rounds: int, stretch: float) -> Exchange:
        """Of a window's verifications: the mean rank, and the busiest one.

        Layers are all alike and seconds expected ones, so a tuple has one entry, the sum over
        layers. `stretch` is of every second.
        """
        forwards = rounds * self._model.step.target.num_moe_layers
        return Exchange(
            ranks=(self._trace(mean, rounds, forwards, rounds * stretch),),
            alike=self._ranks,
            forwards=rounds,
            max_activated_experts=(round(mean.max_activated_experts * forwards),),
            max_load=(round(mean.max_load * forwards),),
        )

    def _trace(self, mean: MeanRank, rounds: int, forwards: int, factor: float) -> RankTrace:
        whole, experts = self._weights
        sent, moved = (round(mean.rows * forwards),), (round(mean.moved_bytes * forwards),)
        return RankTrace(
            rank=0,
            gate_tokens=round(mean.gate_tokens * rounds),
            sent_rows=sent,
            received_rows=sent,
            sent_bytes=moved,
            received_bytes=moved,
            activated_experts=(round(mean.activated_experts * forwards),),
            load=(round(mean.load * forwards),),
            dispatch_s=(factor * mean.dispatch_s,),
            expert_s=(factor * mean.expert_s,),
            combine_s=(factor * mean.combine_s,),
            wait_expert_s=(factor * mean.wait_expert_s,),
            target_s=factor * mean.target_s,
            weight_bytes=int(whole),
            expert_bytes=int(experts),
        )

    def _evaluated(self, grid: Grid) -> list[tuple[OneRound, MeanRank]]:
        shared = EpGrid(
            batch_size=grid.batch_size,
            gamma=grid.gamma,
            top_k=grid.top_k,
            context_tokens=grid.context_tokens,
            ranks=np.full(LENGTHS, float(self._ranks)),
        )
        gamma = shared.arrays()[1]
        seconds, work = self._model.target(shared, gamma + 1.0)
        whole = rows(
            OneRound,
            target_s=seconds.total_s,
            draft_s=gamma * self._model.draft_step_s(shared),
            reject_s=self._model.reject_s(shared, gamma),
            experts=work.activated_experts,
        )
        return list(zip(whole, mean_ranks(seconds, work), strict=True))


def mean_ranks(spent: EpSeconds, work: RankWork) -> list[MeanRank]:
    """Of each point of a column. Links wait for the rank with most sequences, but rows are its own.

    It waits in combine for the busiest; of hidden traffic nothing is seen.
    """
    sent, own = work.traffic, work.tokens / work.most_tokens
    combine_s = spent.communication_s * sent.combine_s / sent.seconds
    return rows(
        MeanRank,
        gate_tokens=work.tokens,
        rows=sent.rows * own,
        moved_bytes=(sent.dispatch_bytes + sent.combine_bytes) * own,
        activated_experts=work.experts.activated_mean,
        load=work.experts.load_mean,
        max_activated_experts=work.experts.activated_max,
        max_load=work.experts.load_max,
        dispatch_s=spent.communication_s - combine_s,
        expert_s=spent.experts_s,
        combine_s=combine_s,
        wait_expert_s=spent.imbalance_s,
        target_s=spent.total_s,
    )


def rank_bytes(spec: ModelSpec, ranks: int) -> tuple[float, float]:
    """Weights of a rank and, of these, its routed experts; the rank that holds most of them."""
    shape, size = known_shape(spec), bytes_per_value(spec.dtype)
    held = -(-shape.num_experts // ranks)
    experts = shape.num_moe_layers * held * shape.expert_bytes(size)
    return shape.weight_bytes(size) - shape.routed_expert_bytes(size) + experts, experts
