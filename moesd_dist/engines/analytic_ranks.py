"""What the analytic engine knows of ranks that share experts: their links, and what each of them does."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

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


Verification = tuple[EpSeconds, RankWork]


@dataclass(frozen=True, slots=True, kw_only=True)
class OneRound:
    """Seconds of a round's three phases, and the experts that its target forward activates."""

    target_s: float
    draft_s: float
    reject_s: float
    experts: float


class SharedExperts:
    """The part of the engine that a layout of several ranks adds."""

    def __init__(
        self, step: StepModel, target: ModelSpec, layout: LayoutSpec, simulation: SimulationSpec
    ) -> None:
        self._model, self._ranks = ranks_model(step, layout, simulation), layout.dp_size
        self._weights = rank_bytes(target, layout.dp_size)

    def round(self, grid: Grid) -> tuple[OneRound, Verification]:
        """Of the same point on these ranks, gamma 0 a step of plain decoding."""
        places = {f.name: getattr(grid, f.name) for f in fields(Grid)}
        shared, gamma = EpGrid(**places, ranks=self._ranks), float(np.asarray(grid.gamma))
        seconds, work = self._model.target(shared, gamma + 1.0)
        whole = OneRound(
            target_s=float(seconds.total_s),
            draft_s=gamma * float(self._model.draft_step_s(shared)),
            reject_s=float(self._model.reject_s(shared, gamma)),
            experts=float(work.activated_experts),
        )
        return whole, (seconds, work)

    def exchange(self, verified: Verification, rounds: int, stretch: float) -> Exchange:
        """Of a window's verifications: the mean rank, which stands for all, and the busiest one.

        Layers are all alike and seconds expected ones, so a tuple has one entry, the sum over
        layers. `stretch` is of every second.
        """
        seconds, work = verified
        forwards = rounds * self._model.step.target.num_moe_layers
        whole, experts = self._weights
        mean = RankTrace(
            rank=0,
            weight_bytes=int(whole),
            expert_bytes=int(experts),
            **_counts(work, forwards=forwards, rounds=rounds),
            **_seconds(seconds, work, rounds * stretch),
        )
        return Exchange(
            ranks=(mean,),
            alike=self._ranks,
            forwards=rounds,
            max_activated_experts=_total(work.experts.activated_max, forwards),
            max_load=_total(work.experts.load_max, forwards),
        )


def rank_bytes(spec: ModelSpec, ranks: int) -> tuple[float, float]:
    """Weights of a rank and, of these, its routed experts; the rank that holds most of them."""
    shape, size = known_shape(spec), bytes_per_value(spec.dtype)
    held = -(-shape.num_experts // ranks)
    experts = shape.num_moe_layers * held * shape.expert_bytes(size)
    return shape.weight_bytes(size) - shape.routed_expert_bytes(size) + experts, experts


def _counts(work: RankWork, *, forwards: int, rounds: int) -> dict[str, Any]:
    """Of the mean rank: links wait for the rank with most sequences, but rows are its own."""
    sent, own = work.traffic, work.tokens / work.most_tokens
    rows = _total(sent.rows * own, forwards)
    moved = _total((sent.dispatch_bytes + sent.combine_bytes) * own, forwards)
    return {
        "gate_tokens": round(float(work.tokens) * rounds),
        "sent_rows": rows,
        "received_rows": rows,
        "sent_bytes": moved,
        "received_bytes": moved,
        "activated_experts": _total(work.experts.activated_mean, forwards),
        "load": _total(work.experts.load_mean, forwards),
    }


def _seconds(spent: EpSeconds, work: RankWork, factor: float) -> dict[str, Any]:
    """It waits in combine for the busiest; of hidden traffic nothing is seen."""
    sent = work.traffic
    combine_s = float(spent.communication_s * sent.combine_s / sent.seconds)
    return {
        "dispatch_s": (factor * (float(spent.communication_s) - combine_s),),
        "expert_s": (factor * float(spent.experts_s),),
        "combine_s": (factor * combine_s,),
        "wait_expert_s": (factor * float(spent.imbalance_s),),
        "target_s": factor * float(spent.total_s),
    }


def _total(each: npt.NDArray[np.float64], forwards: int) -> tuple[int]:
    return (round(float(each) * forwards),)
