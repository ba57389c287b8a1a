"""What a rank's layers did and how long each phase took, kept apart from the work and read at the end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from moesd_dist.engines.transformers.clocks import Clock, clock_for
from moesd_dist.engines.transformers.group import RankGroup
from moesd_dist.engines.transformers.wire import WireFormat
from moesd_dist.records.exchange import Exchange, RankTrace

PHASES = PACK, COUNTS, DISPATCH, OPEN, EXPERT, COMBINE, ADD = range(7)


@dataclass(slots=True)
class Step:
    """One layer's forward on this rank."""

    layer: int
    clock: Clock
    sent_rows: int
    received_rows: int
    sent_bytes: int
    received_bytes: int
    load: Tensor  # int64 [slots]


@dataclass(frozen=True, slots=True)
class ExpertsAlone:
    """A clock of one lap, told as all phases: nothing is packed or sent, only experts take time."""

    lap_clock: Clock

    def start(self) -> None:
        self.lap_clock.start()

    def lap(self) -> None:
        self.lap_clock.lap()

    def seconds(self) -> list[float]:
        (experts,) = self.lap_clock.seconds()
        return [experts if phase == EXPERT else 0.0 for phase in PHASES]


@dataclass(slots=True)
class TraceRecorder:
    """Steps while `recording` is on; nothing is read off the device before `take`."""

    recording: bool = False
    gate_tokens: int = 0
    steps: list[Step] = field(default_factory=list)

    def add(
        self,
        layer: int,
        clock: Clock,
        form: WireFormat,
        *,
        sent: int,
        received: int,
        load: Tensor,
    ) -> None:
        """Rows to and from other ranks; each comes back as a sum of `hidden_bytes`."""
        out, back = form.row_bytes, form.hidden_bytes
        sizes = (sent * out + received * back, received * out + sent * back)
        self.steps.append(Step(layer, clock, sent, received, *sizes, load))

    def begin(self, layer: int, load: Tensor) -> Step:
        """A layer of a rank that is alone; its experts come next."""
        clock = ExpertsAlone(clock_for(load.device))
        clock.start()
        return Step(layer, clock, 0, 0, 0, 0, load)

    def end(self, step: Step) -> None:
        step.clock.lap()
        self.steps.append(step)

    def take(self) -> tuple[list[Step], int]:
        """The steps and the tokens at one gate since the last call; starts anew."""
        found = self.steps, self.gate_tokens
        self.steps, self.gate_tokens = [], 0
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """What does not change from window to window."""

    host: str
    weight_bytes: int
    expert_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The traces of all ranks, with the distinct logical experts that only all of them know."""

    exchange: Exchange
    experts_seen: tuple[int, ...]  # [layer], summed over forwards
    layer_forwards: int


def window_of(
    group: RankGroup,
    taken: tuple[list[Step], int],
    about: Whereabouts,
    *,
    target_s: float,
    logical: Tensor,
) -> Window:
    """Every rank calls; all get the same. `logical` int64 [layer, ranks x slots], -1 where empty.

    ValueError where the ranks did not run as many layers: they were out of step.
    """
    steps, gate_tokens = taken
    layers, slots = len(logical), logical.shape[1] // group.size
    told = [len(steps), gate_tokens, about.weight_bytes, about.expert_bytes]
    everyone = group.gather_object((told, about.host, target_s))
    if len({counts[0] for counts, _, _ in everyone}) > 1 or len(steps) % layers:
        raise ValueError(
            f"ranks must run the same layers; got {[c[0] for c, _, _ in everyone]} layer forwards "
            f"of {layers} layers from rank 0 on"
        )
    by_rank = _gathered(group, steps, (layers, slots))
    traces = _traces(everyone, _ranks(*by_rank))
    loads = by_rank[2]
    exchange = Exchange(
        ranks=traces,
        forwards=len(steps) // layers,
        max_activated_experts=_busiest((loads > 0).sum(-1)),
        max_load=_busiest(loads.sum(-1)),
    )
    return Window(
        # Rank 0 speaks for all: as many copies as ranks would cross the cluster.
        exchange=exchange if group.rank == 0 else replace(exchange, ranks=()),
        experts_seen=_distinct(loads, logical),
        layer_forwards=len(steps),
    )


def _gathered(group: RankGroup, steps: list[Step], shape: tuple[int, int]) -> list[Tensor]:
    """Seconds, rows with bytes, and loads of all ranks, each [rank, layer, forward, ...]."""
    layers, slots = shape
    order = torch.tensor([step.layer for step in steps], dtype=torch.int64).argsort(stable=True)
    return [
        torch.stack([g.cpu()[order] for g in group.gather(part.to(group.device))]).unflatten(
            1, (layers, -1)
        )
        for part in _arrays(steps, slots)
    ]


def _traces(
    everyone: list[tuple[list[int], str, float]], sums: dict[str, Tensor]
) -> tuple[RankTrace, ...]:
    """One a rank, from what it told of itself and its sums [rank, layer]."""
    return tuple(
        RankTrace(
            rank=rank,
            host=host,
            gate_tokens=counts[1],
            weight_bytes=counts[2],
            expert_bytes=counts[3],
            target_s=whole,
            **{name: tuple(values[rank].tolist()) for name, values in sums.items()},
        )
        for rank, (counts, host, whole) in enumerate(everyone)
    )


def _arrays(steps: list[Step], slots: int) -> tuple[Tensor, Tensor, Tensor]:
    """Seconds [steps, phases], rows and bytes [steps, 4], loads [steps, slots]."""
    seconds = torch.tensor([step.clock.seconds() for step in steps], dtype=torch.float64)
    numbers = torch.tensor(
        [[s.sent_rows, s.received_rows, s.sent_bytes, s.received_bytes] for s in steps],
        dtype=torch.int64,
    )
    load = torch.stack([step.load for step in steps]) if steps else torch.zeros(0, slots)
    return seconds.view(-1, len(PHASES)), numbers.view(-1, 4), load.cpu().long()


def _ranks(seconds: Tensor, numbers: Tensor, load: Tensor) -> dict[str, Tensor]:
    """Sums over forwards, [rank, layer] each; what is waiting, records.exchange says."""
    pack, counts, dispatch, opening, expert, combine, adding = seconds.unbind(-1)
    arrival = counts - counts.amin(0)
    busy = opening + expert
    late = torch.minimum(busy.amax(0) - busy, combine)
    found = {
        "pack_s": pack + opening + adding,
        "dispatch_s": counts - arrival + dispatch,
        "expert_s": expert,
        "combine_s": combine - late,
        "wait_arrival_s": arrival,
        "wait_expert_s": late,
        "load": load.sum(-1),
        "activated_experts": (load > 0).sum(-1),
    }
    names = ("sent_rows", "received_rows", "sent_bytes", "received_bytes")
    found |= dict(zip(names, numbers.unbind(-1), strict=True))
    return {name: values.sum(2) for name, values in found.items()}


def _busiest(values: Tensor) -> tuple[int, ...]:
    """[rank, layer, forward] -> [layer]: of each forward its busiest rank, summed."""
    return tuple(values.amax(0).sum(-1).tolist())


def _distinct(loads: Tensor, logical: Tensor) -> tuple[int, ...]:
    """Logical experts with any token, [layer]: replicas of one count once."""
    found = []
    for layer, experts in enumerate(logical):
        hit = loads[:, layer].permute(1, 0, 2).flatten(1) > 0  # [forward, ranks x slots]
        filled = experts >= 0
        onto = torch.zeros(len(hit), int(experts.max()) + 1, dtype=torch.int64)
        onto.index_add_(1, experts[filled], hit[:, filled].long())
        found.append(int((onto > 0).sum()))
    return tuple(found)
