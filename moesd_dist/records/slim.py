"""Outcomes without what is megabytes in size: loads by expert, and exchanges layer by layer."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

from moesd_dist.records.exchange import Exchange, RankTrace
from moesd_dist.records.measurement import Measurement, Repeat
from moesd_dist.records.outcome import Outcome

O = TypeVar("O", bound=Outcome)  # noqa: E741


def without_expert_load(outcome: O) -> O:
    """The load goes, exchanges keep their sums over layers; the journal and the artifact have all.

    No figure changes by it: those of exchanges are sums over layers, too.
    """
    if not isinstance(outcome, Measurement):
        return outcome
    repeats, baseline = (tuple(map(_slim, of)) for of in (outcome.repeats, outcome.baseline))
    if (repeats, baseline) == (outcome.repeats, outcome.baseline):
        return outcome
    return replace(outcome, repeats=repeats, baseline=baseline)


def _slim(repeat: Repeat) -> Repeat:
    """The same object where there is nothing to leave out."""
    exchange = repeat.exchange and _over_layers(repeat.exchange)
    if not repeat.expert_load and exchange is repeat.exchange:
        return repeat
    return replace(repeat, expert_load=(), exchange=exchange)


def _over_layers(exchange: Exchange) -> Exchange:
    ranks = tuple(replace(trace, **_sums(trace)) for trace in exchange.ranks)
    found = replace(exchange, ranks=ranks, **_sums(replace(exchange, ranks=())))
    return exchange if found == exchange else found


def _sums(record: RankTrace | Exchange) -> dict[str, Any]:
    """Of every field that is [layer]; what was not recorded stays empty."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {n: (sum(v),) for n, v in values.items() if isinstance(v, tuple) and v}
