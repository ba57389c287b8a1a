"""What each rank of an expert-parallel engine did in a window, counted and timed."""

# A layer's forward on one rank is a fixed order of phases: pack (sort tokens by rank), counts (how
# many rows come from whom), dispatch, experts, combine, unpack. No rank leaves `counts` before all
# have come, so waiting there is skew from before the layer; after it all ranks start together, so
# waiting in `combine` is what the others' experts took longer. Neither needs clocks that agree:
#   waiting in counts  = own seconds - the least of any rank (the last to come waits for nobody)
#   waiting in combine = the longest experts phase of any rank - the own one, at most the own combine

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RankTrace:
    """One rank's sums over the target forwards of one window; every tuple is [MoE layer].

    Rows are tokens on the wire: a token travels once to each other rank that has any of its experts.
    Bytes are those between ranks, in both directions of a token's journey; what a rank keeps for
    itself is no traffic.
    """

    rank: int
    host: str = ""
    gate_tokens: int = 0  # its own sequences' tokens that entered one gate
    sent_rows: tuple[int, ...] = ()
    received_rows: tuple[int, ...] = ()
    sent_bytes: tuple[int, ...] = ()  # dispatched and, for others, combined
    received_bytes: tuple[int, ...] = ()
    activated_experts: tuple[int, ...] = ()  # local physical ones, summed over forwards
    load: tuple[int, ...] = ()  # tokens x experts computed here, wherever the tokens live
    pack_s: tuple[float, ...] = ()  # sorting, copying and adding up rows
    dispatch_s: tuple[float, ...] = ()  # counts and rows to where their experts are, no waiting
    expert_s: tuple[float, ...] = ()
    combine_s: tuple[float, ...] = ()  # results back, no waiting
    wait_arrival_s: tuple[float, ...] = ()  # for ranks that came later to the layer
    wait_expert_s: tuple[float, ...] = ()  # for ranks whose experts took longer
    target_s: float = 0.0  # its target forwards, whole
    weight_bytes: int = 0  # of the target in its memory
    expert_bytes: int = 0  # of them in routed experts


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """All ranks of one window, in order; sums over forwards of what only a view of all can say."""

    ranks: tuple[RankTrace, ...]
    forwards: int  # target forwards of the window, the same on every rank
    alike: int = 1  # ranks that each trace stands for: a formula knows the mean one only
    max_activated_experts: tuple[int, ...] = ()  # [layer] of the rank with most of them
    max_load: tuple[int, ...] = ()  # [layer] of the busiest rank

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return len(self.ranks) * self.alike
