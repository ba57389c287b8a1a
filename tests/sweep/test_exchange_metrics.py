"""Figures of exchanges, worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moesd_dist.records import Exchange, Measurement, RankTrace
from moesd_dist.records.slim import without_expert_load
from moesd_dist.sweep.exchange_metrics import parts, seconds_by_rank
from moesd_dist.sweep.grid import expand
from moesd_dist.sweep.grouping import groups
from moesd_dist.sweep.pairing import LoadLimit, measure_group
from moesd_dist.sweep.statistics import metrics
from tests.records.known_exchange import FORWARDS, LAYERS, REST_S, SECONDS, exchange, trace

DECODE = exchange([trace(0), trace(1)])
# Rank 1 has more to do, rank 0 waits for it: as long as the other's experts take longer.
VERIFY = exchange(
    [
        trace(0, load=90, activated=20, expert_s=0.020, wait_expert_s=0.018, dispatch_s=0.006),
        trace(1, load=150, activated=30, expert_s=0.036, wait_expert_s=0.002, dispatch_s=0.006),
    ]
)
ALONE = exchange([trace(0, load=192, activated=40)])


@pytest.fixture
def measured(base, formula_engine):
    """Of gamma 4 and batch size 8, without exchanges: 4 forwards of one layer a repeat."""
    (group,) = groups(expand(base(), {"gamma": [4], "batch_size": [8]}), finished=())
    return measure_group(formula_engine(), group, LoadLimit())[1]


@pytest.fixture
def exchanging(measured):
    def make(ours: Exchange, baseline: Exchange, **changes: Any) -> Measurement:
        changes = {"layer_forwards": FORWARDS * LAYERS} | changes
        return replace(
            measured,
            repeats=tuple(replace(r, exchange=ours, **changes) for r in measured.repeats),
            baseline=tuple(replace(r, exchange=baseline, **changes) for r in measured.baseline),
        )

    return make


NEW = {
    "load_imbalance", "max_rank_activated_experts", "rank_activated_experts", "rank_share",
    "sent_rows_per_token", "sent_bytes", "expert_s", "waiting_s", "communication_s", "pack_s",
    "rest_s", "exposed_s", "communication_share", "waiting_share",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("load_imbalance", 150 / 120, id="the busiest rank's load over the mean"),
        pytest.param("baseline_load_imbalance", 1.0, id="equal loads"),
        pytest.param("max_rank_activated_experts", 30, id="experts of the busiest rank"),
        pytest.param("rank_activated_experts", 25, id="experts of the mean rank"),
        pytest.param("rank_share", 1.2, id="the former over the latter"),
        pytest.param("sent_rows_per_token", 18 / 24, id="other ranks that a token travels to"),
        pytest.param("sent_bytes", 9000 * LAYERS, id="bytes of a forward and rank"),
        pytest.param("expert_s", 0.028, id="experts, the mean over ranks"),
        pytest.param("waiting_s", 0.002 + 0.010, id="both kinds of waiting"),
        pytest.param("communication_s", 0.006 + 0.001, id="there and back"),
        pytest.param("exposed_s", 0.019, id="nothing is overlapped"),
        pytest.param("pack_s", 0.002, id="packing"),
        pytest.param("rest_s", REST_S, id="what no phase has"),
        pytest.param("communication_share", 0.007 / 0.069, id="share of a forward"),
        pytest.param("waiting_share", 0.012 / 0.069, id="share of a forward that is waited"),
        pytest.param("baseline_communication_s", 0.004, id="the baseline's"),
        pytest.param("weight_bytes_max", 1001, id="memory of the fullest rank"),
        pytest.param("expert_bytes_max", 801, id="of it in experts"),
        pytest.param("te_loss_experts", 0.018 / 0.040, id="experts take longer"),
        pytest.param("te_loss_imbalance", 0.008 / 0.040, id="so does waiting"),
        pytest.param("te_loss_communication", 0.003 / 0.040, id="and communication"),
        pytest.param("te_loss_packing", 0.0, id="not packing"),
        pytest.param("te_loss_rest", 0.0, id="nor the rest"),
    ],
)  # fmt: skip
def test_figures_follow_from_what_the_ranks_recorded(exchanging, name, expected):
    assert metrics(exchanging(VERIFY, DECODE))[name] == pytest.approx(expected)


def test_the_losses_are_all_that_verification_takes_longer(exchanging):
    found = metrics(exchanging(VERIFY, DECODE))
    losses = sum(value for name, value in found.items() if name.startswith("te_loss_"))
    assert 1 + losses == pytest.approx(0.069 / 0.040)
    names = ("expert_s", "waiting_s", "communication_s", "pack_s", "rest_s")
    assert sum(found[name] for name in names) == pytest.approx(0.069)


def test_the_baseline_has_the_same_figures_beside_it(exchanging):
    found = metrics(exchanging(VERIFY, DECODE))
    assert found.keys() >= NEW | {f"baseline_{name}" for name in NEW}


def test_windows_weigh_as_much_as_their_forwards(exchanging):
    """A ratio of totals: the longer window counts more."""
    both = exchanging(VERIFY, DECODE)
    longer = replace(
        DECODE,
        forwards=3 * FORWARDS,
        ranks=tuple(replace(t, target_s=3 * t.target_s) for t in DECODE.ranks),
    )
    repeats = (both.repeats[0], replace(both.repeats[1], exchange=longer))
    found = parts(repeats)
    assert found["experts"] == pytest.approx((0.028 + 0.010) / (1 + 3))
    assert sum(found.values()) == pytest.approx((0.069 + 3 * 0.040) / (1 + 3))


def test_a_rank_alone_has_no_exchange_to_speak_of(exchanging, measured):
    found = metrics(exchanging(ALONE, ALONE))
    added = {name for name in found if name not in metrics(measured)}
    assert added == {
        "expert_s", "rest_s", "baseline_expert_s", "baseline_rest_s", "te_loss_experts",
        "te_loss_rest", "weight_bytes_max", "expert_bytes_max",
    }  # fmt: skip
    assert found["rest_s"] == pytest.approx(sum(SECONDS.values()) + REST_S - 0.010)


def test_without_an_exchange_nothing_is_new(measured):
    assert not [n for n in metrics(measured) if n in NEW or n.startswith("te_loss")]


def bare(rank: int, **known: Any) -> RankTrace:
    return RankTrace(rank=rank, **known)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        pytest.param({}, set(), id="nothing but the ranks"),
        pytest.param({"target_s": 1.0}, set(), id="forwards without phases"),
        pytest.param({"load": (3, 4)}, set(), id="loads without the busiest"),
        pytest.param({"expert_s": (0.1, 0.1)}, set(), id="phases without the forwards"),
        pytest.param({"target_s": 1.0, "expert_s": (0.1, 0.1)}, {"expert_s", "rest_s"}, id="experts"),
        pytest.param(
            {"target_s": 1.0, "expert_s": (0.1, 0.1), "dispatch_s": (0.1, 0.1)},
            {"expert_s", "communication_s", "rest_s", "communication_share"},
            id="no waiting",
        ),
    ],
)  # fmt: skip
def test_what_was_not_recorded_has_no_figure(exchanging, measured, known, expected):
    partial = Exchange(ranks=(bare(0, **known), bare(1, **known)), forwards=FORWARDS)
    found = metrics(exchanging(partial, partial)).keys() - metrics(measured).keys()
    assert {n for n in found if not n.startswith(("baseline_", "te_loss_"))} == expected


def test_a_baseline_without_an_exchange_leaves_the_losses_out(exchanging):
    found = metrics(
        replace(exchanging(VERIFY, DECODE), baseline=exchanging(VERIFY, ALONE).baseline)
    )
    assert "expert_s" in found
    assert not [name for name in found if name.startswith("te_loss_")]


def test_untimed_points_keep_the_counts_alone(exchanging):
    m = exchanging(VERIFY, DECODE)
    untimed = replace(m, point=replace(m.point, cpu_fixes=True, layout=replace(m.point.layout, ep_size=2)))  # fmt: skip
    found = metrics(untimed)
    assert found["load_imbalance"] == pytest.approx(1.25)
    assert not [name for name in found if name.endswith("_s") or name.startswith("te_loss")]


def test_one_trace_may_stand_for_many_ranks(exchanging):
    """A prediction knows the mean rank and the busiest, not each of hundreds."""
    few = exchanging(exchange([trace(0), trace(1)]), DECODE)
    many = exchanging(replace(exchange([trace(0)]), alike=2), DECODE)
    assert (few.ranks, many.ranks) == (2, 2)
    both = [metrics(m) for m in (few, many)]
    for found in both:
        del found["weight_bytes_max"], found["expert_bytes_max"]
    assert both[0] == pytest.approx(both[1])


def test_ranks_are_told_apart(exchanging):
    first, second = seconds_by_rank(exchanging(VERIFY, DECODE).repeats)
    assert first["expert_s"] == pytest.approx(0.020)
    assert second["expert_s"] == pytest.approx(0.036)
    assert first["wait_expert_s"] - second["wait_expert_s"] == pytest.approx(0.016)
    assert first["rest_s"] == pytest.approx(second["rest_s"]) == pytest.approx(REST_S)


def test_a_record_without_its_layers_has_the_same_figures(exchanging):
    whole = exchanging(VERIFY, DECODE)
    slim = without_expert_load(whole)
    assert slim != whole
    assert metrics(slim) == metrics(whole)
