"""Exchanges travel whole, and in short without their layers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from moesd_dist.records import Failed, Measurement, Repeat
from moesd_dist.records.serial import from_plain, outcome_from_plain, to_plain
from moesd_dist.records.slim import without_expert_load
from tests.records.known_exchange import exchange, trace
from tests.records.test_serial import MEASUREMENT, REPEAT

EXCHANGE = exchange([trace(0, load=90), trace(1, load=150)])
SHARED = replace(
    MEASUREMENT,
    repeats=tuple(replace(r, exchange=EXCHANGE) for r in MEASUREMENT.repeats),
)


def test_an_exchange_comes_back_equal() -> None:
    assert outcome_from_plain(json.loads(json.dumps(to_plain(SHARED)))) == SHARED


def test_a_repeat_from_before_exchanges_were_recorded_is_still_read() -> None:
    plain = to_plain(REPEAT)
    del plain["exchange"]
    assert from_plain(Repeat, plain) == REPEAT


def test_a_short_record_has_sums_over_layers() -> None:
    (short, _) = without_expert_load(SHARED).repeats
    assert short.expert_load == ()
    assert short.exchange is not None
    rank = short.exchange.ranks[1]
    assert rank.load == (sum(EXCHANGE.ranks[1].load),)
    assert rank.dispatch_s == (sum(EXCHANGE.ranks[1].dispatch_s),)
    assert (rank.target_s, rank.host) == (EXCHANGE.ranks[1].target_s, EXCHANGE.ranks[1].host)
    assert short.exchange.max_load == (sum(EXCHANGE.max_load),)


def test_what_was_not_recorded_stays_empty() -> None:
    sparse = replace(EXCHANGE, ranks=(replace(trace(0), pack_s=()),), max_load=())
    repeats = (replace(REPEAT, exchange=sparse),)
    (short,) = without_expert_load(replace(SHARED, repeats=repeats)).repeats
    assert short.exchange is not None
    assert (short.exchange.ranks[0].pack_s, short.exchange.max_load) == ((), ())


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(without_expert_load(SHARED), id="short already"),
        pytest.param(Failed(point=MEASUREMENT.point, reason="it broke"), id="no measurement"),
    ],
)
def test_what_is_short_stays_the_same_object(outcome: Measurement | Failed) -> None:
    """Figures are worked out once an object."""
    assert without_expert_load(outcome) is outcome


@pytest.mark.parametrize("ranks", [0, 1, 4])
def test_a_measurement_knows_how_many_ranks_it_looked_into(ranks: int) -> None:
    seen = exchange([trace(r) for r in range(ranks)]) if ranks else None
    repeats = tuple(replace(r, exchange=seen) for r in MEASUREMENT.repeats)
    assert replace(MEASUREMENT, repeats=repeats).ranks == ranks
