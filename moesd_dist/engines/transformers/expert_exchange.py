"""A layer's experts on several ranks: tokens go to where their experts are, and sums come back."""

# Two backends. all_to_all sends a token once to each rank that has any of its experts, and gets one
# partial sum from each. allgather_reducescatter sends every token to every rank and adds up
# everything: more bytes, but no need to know who wants what.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moesd_dist.engines.transformers.clocks import Clock, clock_for
from moesd_dist.engines.transformers.group import RankGroup
from moesd_dist.engines.transformers.traces import TraceRecorder
from moesd_dist.engines.transformers.wire import NOT_HERE, WireFormat
from moesd_dist.records.calibration import ALL_GATHER
from moesd_dist.theory.expert_parallel.placement import EMPTY, Placement

Local = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(hidden [tokens, width], token, local expert and weight of each pair) -> weighted [pairs, width]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Rows that came to a rank, and what its experts make of them."""

    hidden: Tensor
    ids: Tensor  # [rows, top_k] local experts, NOT_HERE for others
    weights: Tensor


class ExpertExchange:
    """Of one model on one rank: the same group and placement for all its layers."""

    def __init__(
        self, group: RankGroup, placement: Placement, traces: TraceRecorder, backend: str
    ) -> None:
        self.group, self.traces = group, traces
        self.slots = placement.slots_per_rank
        self._gathers = backend == ALL_GATHER
        self._replicas, self._places = _tables(placement, group.device)

    def forward(
        self, layer: int, local: Local, hidden: Tensor, chosen: Tensor, weights: Tensor
    ) -> Tensor:
        """[tokens, width] of all chosen experts; every rank has to call, with or without tokens."""
        form = WireFormat(hidden.shape[1], chosen.shape[1], hidden.dtype)
        step = self._gathered if self._gathers else self._dispatched
        return step(layer, local, form, (hidden, self._physical(layer, chosen), weights))

    def idle(self, layer: int, local: Local, form: WireFormat) -> None:
        """Takes part in a layer without a token of its own: its experts may be wanted."""
        device = self.group.device
        hidden = torch.empty(0, form.width, dtype=form.dtype, device=device)
        chosen = torch.empty(0, form.top_k, dtype=torch.int64, device=device)
        self.forward(layer, local, hidden, chosen, chosen.float())

    def _physical(self, layer: int, chosen: Tensor) -> Tensor:
        """Slots [tokens, top_k] of logical experts; replicas are used in turn by token and rank."""
        turn = torch.arange(len(chosen), device=chosen.device)[:, None] + self.group.rank
        replica = turn % self._replicas[layer][chosen]
        return self._places[layer][chosen, replica]

    def _dispatched(
        self, layer: int, local: Local, form: WireFormat, tokens: tuple[Tensor, Tensor, Tensor]
    ) -> Tensor:
        hidden, physical, weights = tokens
        clock = self._started()
        ranks = physical // self.slots
        wanted = torch.zeros(len(hidden), self.group.size, dtype=torch.bool, device=hidden.device)
        wanted.scatter_(1, ranks, torch.ones_like(ranks, dtype=torch.bool))
        there, token = wanted.t().nonzero(as_tuple=True)  # rank by rank
        ids = torch.where(ranks[token] == there[:, None], physical[token] % self.slots, NOT_HERE)
        rows = form.pack(hidden[token], ids, weights[token])
        counts = wanted.sum(0)
        out = counts.tolist()
        clock.lap()
        into = self.group.counts(counts).tolist()
        clock.lap()
        received = self.group.all_to_all(rows, out, into)
        clock.lap()
        work = Work(**_named(form.unpack(received)))
        clock.lap()
        sums, load = self._compute(local, work, hidden.dtype)
        clock.lap()
        back = self.group.all_to_all(sums, into, out)
        clock.lap()
        result = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
        result.index_add_(0, token, back.float())
        clock.lap()
        self._trace(layer, clock, form, (out, into), load)
        return result.to(hidden.dtype)

    def _gathered(
        self, layer: int, local: Local, form: WireFormat, tokens: tuple[Tensor, Tensor, Tensor]
    ) -> Tensor:
        hidden, physical, weights = tokens
        clock = self._started()
        rows = form.pack(hidden, physical, weights)
        own = torch.full((self.group.size,), len(hidden), device=hidden.device)
        clock.lap()
        sizes = self.group.counts(own).tolist()
        clock.lap()
        received = self.group.all_gather(rows, sizes)
        clock.lap()
        work = Work(**_named(form.unpack(received)))
        here = work.ids // self.slots == self.group.rank
        work.ids.copy_(torch.where(here, work.ids % self.slots, NOT_HERE))
        clock.lap()
        sums, load = self._compute(local, work, hidden.dtype)
        clock.lap()
        result = self.group.reduce_scatter(sums, sizes)
        clock.lap()
        clock.lap()
        padded = [max(sizes)] * self.group.size  # what travels: both collectives want equal parts
        self._trace(layer, clock, form, (padded, padded), load)
        return result

    def _compute(self, local: Local, work: Work, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Partial sums [rows, width] of the local experts, and their load [slots]."""
        token, place = (work.ids != NOT_HERE).nonzero(as_tuple=True)
        expert = work.ids[token, place].long()
        load = torch.zeros(self.slots, dtype=torch.int64, device=expert.device)
        load.scatter_add_(0, expert, torch.ones_like(expert))
        sums = torch.zeros(work.hidden.shape, dtype=torch.float32, device=expert.device)
        if len(token):
            found = local(work.hidden, token, expert, work.weights[token, place])
            sums.index_add_(0, token, found.float())
        return sums.to(dtype), load

    def _started(self) -> Clock:
        clock = clock_for(self.group.device)
        clock.start()
        return clock

    def _trace(
        self,
        layer: int,
        clock: Clock,
        form: WireFormat,
        rows: tuple[list[int], list[int]],
        load: Tensor,
    ) -> None:
        if self.traces.recording:
            sent, received = (sum(n) - n[self.group.rank] for n in rows)
            self.traces.add(layer, clock, form, sent=sent, received=received, load=load)


def local_of(module: Any, packed: Any, grouped: Callable[..., Tensor]) -> Local:
    """How a rank computes its own experts: in the blocked layout, or by one grouped product."""

    def by_packed(hidden: Tensor, token: Tensor, expert: Tensor, weights: Tensor) -> Tensor:
        counts = torch.bincount(expert, minlength=len(packed.gate_up))
        found: Tensor = packed.pairs(hidden, token, expert, weights, counts)
        return found

    def by_grouped(hidden: Tensor, token: Tensor, expert: Tensor, weights: Tensor) -> Tensor:
        return grouped(module, hidden[token], expert[:, None], weights[:, None])

    return by_grouped if packed is None else by_packed


def _named(parts: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
    return dict(zip(("hidden", "ids", "weights"), parts, strict=True))


def _tables(placement: Placement, device: torch.device) -> tuple[Tensor, Tensor]:
    """Replicas [layer, expert], and their slots [layer, expert, replica], unused ones 0."""
    slots = placement.physical_to_logical
    counts = np.stack(
        [np.bincount(row[row != EMPTY], minlength=placement.num_experts) for row in slots]
    )
    places = np.zeros((*counts.shape, counts.max()), dtype=np.int64)
    for layer, row in enumerate(slots):
        used = np.zeros(placement.num_experts, dtype=np.int64)
        for slot, expert in enumerate(row):
            if expert != EMPTY:
                places[layer, expert, used[expert]] = slot
                used[expert] += 1
    return torch.from_numpy(counts).to(device), torch.from_numpy(places).to(device)
