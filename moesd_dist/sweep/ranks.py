"""One outcome a point from those of the data-parallel ranks that measured it side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from moesd_dist.records import Failed, Infeasible, Measurement, Outcome, Repeat, SweepPoint

# Every rank has its own sequences, so what is counted adds up.
SUMMED = (
    "tokens", "drafted", "accepted", "sequence_rounds", "prompts", "prompt_tokens",
    "end_to_end_tokens", "request_tokens", "request_s", "scheduled_sequences",
)  # fmt: skip
# Ranks run side by side, so the slowest decides how long it took and how many steps it was.
LARGEST = (
    "seconds", "draft_s", "target_s", "reject_s", "overhead_s", "prefill_s", "end_to_end_s",
    "rounds", "scheduled_steps", "median_target_s", "median_draft_s", "foreign_cpu",
    "engine_starts",
)  # fmt: skip


def merge(outcomes_by_rank: Sequence[Sequence[Outcome]]) -> list[Outcome]:
    """One outcome a point, in the order in which points first appear; rank r's are at place r.

    ValueError where the ranks did not measure the same: another gamma, another number of repeats.
    """
    if len(outcomes_by_rank) == 1:
        return list(outcomes_by_rank[0])
    found = [{o.point.point_id: o for o in outcomes} for outcomes in outcomes_by_rank]
    points = {key: o.point for outcomes in found for key, o in outcomes.items()}
    return [_merged(point, [own.get(key) for own in found]) for key, point in points.items()]


def failed(point: SweepPoint, broken: Mapping[int, tuple[str, str]], *, size: int) -> Failed:
    """A point that broke on some of `size` ranks; `broken` is reason and log by rank."""
    reason, log = by_name(broken, size)
    return Failed(point=point, reason=reason, log=log)


def by_name(broken: Mapping[int, tuple[str, str]], size: int) -> tuple[str, str]:
    """One reason and one log from those of the ranks that broke."""
    names = {rank: f"rank {rank} of {size}" for rank in sorted(broken)}
    reasons = [f"{name}: {broken[rank][0]}" for rank, name in names.items()]
    logs = [f"== {name} ==\n{broken[rank][1]}" for rank, name in names.items() if broken[rank][1]]
    return "; ".join(reasons), "\n".join(logs)


def _merged(point: SweepPoint, outcomes: Sequence[Outcome | None]) -> Outcome:
    broken = {rank: _why(o) for rank, o in enumerate(outcomes) if o is None or _broke(o)}
    if broken:
        return failed(point, broken, size=len(outcomes))
    impossible = [o for o in outcomes if isinstance(o, Infeasible)]
    if impossible:
        return impossible[0]
    return _measurement([o for o in outcomes if isinstance(o, Measurement)])


def _broke(outcome: Outcome) -> bool:
    return isinstance(outcome, Failed)


def _why(outcome: Outcome | None) -> tuple[str, str]:
    if isinstance(outcome, Failed):
        return outcome.reason, outcome.log
    return "it returned no outcome for the point, others did", ""


def _measurement(ranks: Sequence[Measurement]) -> Measurement:
    """What the ranks say about themselves is rank 0's, but for hosts, machines and flags."""
    return replace(
        ranks[0],
        repeats=_repeats([m.repeats for m in ranks]),
        baseline=_repeats([m.baseline for m in ranks]),
        host=", ".join(dict.fromkeys(m.host for m in ranks)),
        flags=tuple(dict.fromkeys(flag for m in ranks for flag in m.flags)),
        machine=_machine([m.machine for m in ranks]),
    )


def _machine(ranks: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Each fact once where all agree, else what each rank says that says anything."""
    facts = dict.fromkeys(fact for machine in ranks for fact in machine)
    return {f: "; ".join(dict.fromkeys(m[f] for m in ranks if f in m)) for f in facts}


def _repeats(ranks: Sequence[Sequence[Repeat]]) -> tuple[Repeat, ...]:
    counts = [len(repeats) for repeats in ranks]
    if len(set(counts)) > 1:
        raise ValueError(
            f"all ranks must measure as many repeats; got {counts} from rank 0 on; "
            "give them the same group"
        )
    return tuple(merged_repeat(repeats) for repeats in zip(*ranks, strict=True))


def merged_repeat(ranks: Sequence[Repeat]) -> Repeat:
    """Counts summed, wall-clock seconds of the slowest rank.

    The slowest draft phase may be another rank's than the slowest verification, so the parts may
    add up to more than `seconds`. Summed loads are right whoever counted them; distinct experts
    stay unknown unless the ranks counted those of all together, which they do with an exchange.
    """
    gammas = [r.tokens_per_forward - 1 for r in ranks]
    if len(set(gammas)) > 1:
        raise ValueError(
            f"gamma must be equal on all ranks; got {gammas} from rank 0 on; give them the same group"
        )
    experts_seen, layer_forwards = _distinct_experts(ranks)
    sums: dict[str, Any] = {name: sum(getattr(r, name) for r in ranks) for name in SUMMED}
    maxima: dict[str, Any] = {name: max(getattr(r, name) for r in ranks) for name in LARGEST}
    return replace(
        ranks[0],
        **sums,
        **maxima,
        # A rank whose share of the batch is empty has no positions to count.
        accepted_per_position=_columns(r.accepted_per_position for r in ranks),
        mean_context=_mean_context(ranks),
        verified_tokens=_verified_tokens(ranks),
        expert_load=_expert_load([r.expert_load for r in ranks]),
        experts_seen=experts_seen,
        layer_forwards=layer_forwards,
    )


def _columns(rows: Iterable[Sequence[int]]) -> tuple[int, ...]:
    return tuple(sum(column) for column in zip_longest(*rows, fillvalue=0))


def _mean_context(ranks: Sequence[Repeat]) -> float:
    weight = sum(r.sequence_rounds for r in ranks)
    return sum(r.mean_context * r.sequence_rounds for r in ranks) / weight if weight else 0.0


def _verified_tokens(ranks: Sequence[Repeat]) -> int:
    """0 has a meaning of its own, so it is kept where no rank counted and spelt out where one did."""
    if not any(r.verified_tokens for r in ranks):
        return 0
    return sum(r.verified_tokens or r.sequence_rounds * r.tokens_per_forward for r in ranks)


def _distinct_experts(ranks: Sequence[Repeat]) -> tuple[tuple[int, ...], int]:
    """`experts_seen` and `layer_forwards`.

    Ranks that look into each other report the same experts of all their tokens. Any other rank
    reports those that its own tokens chose: their sum would count an expert that two chose twice.
    """
    said = {(r.experts_seen, r.layer_forwards) for r in ranks}
    return said.pop() if len(said) == 1 and all(r.exchange for r in ranks) else ((), 0)


def _expert_load(
    loads: Sequence[tuple[tuple[int, ...], ...]],
) -> tuple[tuple[int, ...], ...]:
    """Summed where every rank traced; empty otherwise, since a part of it would pass for all."""
    if not all(loads):
        return ()
    return tuple(_columns(layers) for layers in zip(*loads, strict=True))
