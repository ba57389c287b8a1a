"""What sharing experts out over ranks costs a target forward: figures of recorded exchanges."""

# All that is recorded is exposed: nothing of an exchange overlaps with computing in our engine, and
# a prediction leaves out what it takes for hidden.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from moesd_dist.records import Exchange, Measurement, RankTrace, Repeat

PHASES = ("expert_s", "wait_arrival_s", "wait_expert_s", "dispatch_s", "combine_s", "pack_s")
ALONE = ("expert_s",)  # all that there is to a layer without other ranks
REST = "rest_s"  # what no phase has: attention, routers, whatever lies between the MoE layers

_PARTS = {  # of a target forward, by the name that a loss of target efficiency has
    "experts": ("expert_s",),
    "imbalance": ("wait_arrival_s", "wait_expert_s"),
    "communication": ("dispatch_s", "combine_s"),
    "packing": ("pack_s",),
    "rest": (REST,),
}
_SECONDS = {
    "experts": "expert_s",
    "imbalance": "waiting_s",
    "communication": "communication_s",
    "packing": "pack_s",
    "rest": REST,
}


def seconds_by_rank(repeats: Sequence[Repeat]) -> list[dict[str, float]]:
    """Seconds of one target forward, phase by phase, one entry a trace; totals over totals.

    A phase that nobody recorded is missing. A rank alone has its experts and the rest; nothing at
    all is known where no repeat timed its ranks.
    """
    known = [r.exchange for r in repeats if r.exchange and _timed(r.exchange)]
    ranks = list(zip(*(e.ranks for e in known), strict=True))
    forwards = sum(e.forwards for e in known)
    alone = all(e.size == 1 for e in known)
    phases = [p for p in (ALONE if alone else PHASES) if _recorded(ranks, p)]
    found = [{p: sum(sum(getattr(t, p)) for t in own) / forwards for p in phases} for own in ranks]
    whole = [sum(t.target_s for t in own) / forwards for own in ranks]
    both = zip(found, whole, strict=True)
    return [own | {REST: s - sum(own.values())} for own, s in both] if phases else []


def parts(repeats: Sequence[Repeat]) -> dict[str, float]:
    """Seconds of one target forward by part, the mean over ranks: together they are all of it."""
    ranks = seconds_by_rank(repeats)
    means = {phase: fmean(own[phase] for own in ranks) for phase in (ranks[0] if ranks else ())}
    found = {part: [means[p] for p in phases if p in means] for part, phases in _PARTS.items()}
    return {part: sum(seconds) for part, seconds in found.items() if seconds}


def exchange_counts(m: Measurement) -> dict[str, float]:
    """Loads, activated experts, traffic and memory of the ranks, the baseline's beside them."""
    return _of_both(m, _counts) | _memory(m)


def exchange_times(m: Measurement) -> dict[str, float]:
    """Seconds a target forward by part, and which parts the target efficiency is lost to.

    With T a target forward's seconds, the mean over ranks, and TE = T_decode / T_verify:
    1 / TE = 1 + the sum of all `te_loss_...`, each (part_verify - part_decode) / T_decode. Totals
    over totals, so 1 / `target_efficiency`, made of medians, may differ a little.
    """
    return _of_both(m, _times) | _losses(m)


def _of_both(
    m: Measurement, figures: Callable[[Sequence[Repeat]], Mapping[str, float]]
) -> dict[str, float]:
    baseline = {f"baseline_{name}": value for name, value in figures(m.baseline).items()}
    return {**figures(m.repeats), **baseline}


def _counts(repeats: Sequence[Repeat]) -> dict[str, float]:
    """Of several ranks; traces weigh the same, however many ranks each stands for."""
    known = [(r.exchange, r.layer_forwards) for r in repeats if r.exchange]
    known = [(e, layer_forwards) for e, layer_forwards in known if e.size > 1]
    return _known({**_loads(known), **_traffic(known)}) if known else {}


def _loads(known: Sequence[tuple[Exchange, int]]) -> dict[str, tuple[float, float]]:
    """`rank_share` is the busiest rank's activated experts over the mean rank's."""
    exchanges, layer_forwards = [e for e, _ in known], sum(n for _, n in known)
    traces = len(exchanges[0].ranks)
    busiest = sum(sum(e.max_activated_experts) for e in exchanges)
    activated = _total(exchanges, "activated_experts") / traces
    load = _total(exchanges, "load") / traces
    return {
        "load_imbalance": (sum(sum(e.max_load) for e in exchanges), load),
        "max_rank_activated_experts": (busiest, layer_forwards),
        "rank_activated_experts": (activated, layer_forwards),
        "rank_share": (busiest, activated),
    }


def _traffic(known: Sequence[tuple[Exchange, int]]) -> dict[str, tuple[float, float]]:
    """Rows by the tokens at all layers' gates, those that could be sent; bytes by forward and rank."""
    exchanges = [e for e, _ in known]
    gated = sum(_gate_tokens(e) * n / e.forwards for e, n in known if e.forwards)
    forwards = sum(e.forwards * len(e.ranks) for e in exchanges)
    return {
        "sent_rows_per_token": (_total(exchanges, "sent_rows"), gated),
        "sent_bytes": (_total(exchanges, "sent_bytes"), forwards),
    }


def _memory(m: Measurement) -> dict[str, float]:
    """Of the target on the rank that holds most of it."""
    traces = [t for r in m.repeats if r.exchange for t in r.exchange.ranks]
    found = {
        "weight_bytes_max": max((t.weight_bytes for t in traces), default=0),
        "expert_bytes_max": max((t.expert_bytes for t in traces), default=0),
    }
    return {name: float(value) for name, value in found.items() if value}


def _times(repeats: Sequence[Repeat]) -> dict[str, float]:
    found = parts(repeats)
    seconds = {_SECONDS[part]: value for part, value in found.items()}
    shared = {part: found[part] for part in ("communication", "imbalance") if part in found}
    if len(shared) == 2:
        seconds["exposed_s"] = sum(shared.values())
    names = {"communication": "communication_share", "imbalance": "waiting_share"}
    return seconds | {names[p]: value / sum(found.values()) for p, value in shared.items()}


def _losses(m: Measurement) -> dict[str, float]:
    ours, base = parts(m.repeats), parts(m.baseline)
    if m.point.gamma == 0 or not ours or ours.keys() != base.keys():
        return {}
    whole = sum(base.values())
    return {f"te_loss_{part}": (ours[part] - base[part]) / whole for part in ours}


def _timed(exchange: Exchange) -> bool:
    return exchange.forwards > 0 and all(trace.target_s for trace in exchange.ranks)


def _recorded(ranks: Sequence[Sequence[RankTrace]], phase: str) -> bool:
    return any(getattr(trace, phase) for own in ranks for trace in own)


def _total(exchanges: Sequence[Exchange], name: str) -> int:
    """Over windows, ranks and layers."""
    return sum(sum(getattr(trace, name)) for e in exchanges for trace in e.ranks)


def _gate_tokens(exchange: Exchange) -> int:
    return sum(trace.gate_tokens for trace in exchange.ranks)


def _known(ratios: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Ratios of what was counted; zeros stand for what was not."""
    return {name: top / bottom for name, (top, bottom) in ratios.items() if top and bottom}
