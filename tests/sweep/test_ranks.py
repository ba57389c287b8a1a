"""What ranks measured side by side becomes one outcome a point, and nobody's failure is lost."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from moesd_dist.records import Failed, Infeasible, Measurement, Repeat
from moesd_dist.sweep.grid import expand
from moesd_dist.sweep.grouping import groups
from moesd_dist.sweep.pairing import LoadLimit, measure_group
from moesd_dist.sweep.ranks import LARGEST, SUMMED, merge, merged_repeat


def repeat(**changes):
    return Repeat(
        **{
            "seconds": 2.0, "rounds": 10, "tokens": 50, "drafted": 60, "accepted": 30,
            "accepted_per_position": (20, 8, 2), "sequence_rounds": 20, "draft_s": 0.4,
            "target_s": 1.2, "reject_s": 0.2, "tokens_per_forward": 4, "median_target_s": 0.12,
            "median_draft_s": 0.04,
        }
        | changes
    )  # fmt: skip


@pytest.fixture
def point(base):
    return base(gamma=3, batch_size=4)


@pytest.fixture
def measured(point):
    def make(*repeats, **changes):
        about = {"host": "a", "device_name": "chip", "versions": {"torch": "1"}} | changes
        return Measurement(point=point, repeats=repeats, baseline=repeats, **about)

    return make


@pytest.mark.parametrize("name", SUMMED)
def test_what_ranks_count_adds_up(name):
    ranks = [repeat(**{name: 3}), repeat(**{name: 5})]
    assert getattr(merged_repeat(ranks), name) == 8


@pytest.mark.parametrize("name", LARGEST)
def test_the_slowest_rank_decides(name):
    ranks = [repeat(**{name: 3}), repeat(**{name: 5})]
    assert getattr(merged_repeat(ranks), name) == 5


def test_every_field_of_a_repeat_has_a_rule():
    """Who adds a field decides how ranks share it."""
    own = {
        "accepted_per_position", "tokens_per_forward", "experts_seen", "layer_forwards",
        "expert_load", "mean_context", "verified_tokens", "exchange",
    }  # fmt: skip
    assert {*SUMMED, *LARGEST, *own} == {f.name for f in fields(Repeat)}


@pytest.mark.parametrize(
    ("name", "shares", "merged"),
    [
        pytest.param("accepted_per_position", [(9, 4), (6, 1)], (15, 5), id="by position"),
        pytest.param("accepted_per_position", [(9, 4), ()], (9, 4), id="a rank without sequences"),
        pytest.param("expert_load", [((1, 2), (3, 0)), ((4, 0), (0, 5))], ((5, 2), (3, 5)), id="load"),
        pytest.param("expert_load", [((1, 2),), ()], (), id="half a load is none"),
        pytest.param("experts_seen", [(5, 6), (7, 8)], (), id="the union of experts is unknown"),
        pytest.param("layer_forwards", [4, 4], 0, id="so nothing divides by their forwards"),
        pytest.param("verified_tokens", [0, 0], 0, id="nobody counted verified tokens"),
        pytest.param("verified_tokens", [70, 0], 70 + 20 * 4, id="one rank counted, one did not"),
    ],
)  # fmt: skip
def test_what_is_neither_a_sum_nor_the_largest(name, shares, merged):
    assert getattr(merged_repeat([repeat(**{name: own}) for own in shares]), name) == merged


def test_the_mean_context_is_weighted_by_rounds_of_sequences():
    ranks = [repeat(mean_context=10.0, sequence_rounds=30), repeat(mean_context=50.0, sequence_rounds=10)]  # fmt: skip
    assert merged_repeat(ranks).mean_context == pytest.approx(20.0)
    idle = [repeat(mean_context=10.0, sequence_rounds=0)] * 2
    assert merged_repeat(idle).mean_context == 0.0


def test_ratios_of_the_merged_record_are_ratios_of_totals(measured):
    (merged,) = merge([[measured(repeat())], [measured(repeat(accepted=10, sequence_rounds=20))]])
    assert merged.acceptance_length == pytest.approx(1 + 40 / 40)
    assert merged.activated_experts == 0.0


def test_repeats_and_baselines_merge_repeat_by_repeat(measured):
    ranks = [[measured(repeat(seconds=1.0), repeat(seconds=4.0))],
             [measured(repeat(seconds=3.0), repeat(seconds=2.0))]]  # fmt: skip
    (merged,) = merge(ranks)
    assert [r.seconds for r in merged.repeats] == [3.0, 4.0]
    assert [r.tokens for r in merged.baseline] == [100, 100]


def test_facts_of_the_ranks_machines_are_joined_where_they_differ(measured):
    ranks = [
        [measured(repeat(), machine={"smt": "on", "node": "a"})],
        [measured(repeat(), machine={"smt": "on", "node": "b", "foreign_gpu": "pid 7"})],
    ]
    (merged,) = merge(ranks)
    assert merged.machine == {"smt": "on", "node": "a; b", "foreign_gpu": "pid 7"}


def test_hosts_and_flags_are_joined_and_the_rest_is_rank_0s(measured):
    ranks = [
        [measured(repeat(), host="a", flags=("warm", "foreign_load"))],
        [measured(repeat(), host="b", flags=("foreign_load", "late"), versions={"torch": "2"})],
        [measured(repeat(), host="a")],
    ]
    (merged,) = merge(ranks)
    assert merged.host == "a, b"
    assert merged.flags == ("warm", "foreign_load", "late")
    assert merged.versions == {"torch": "1"}


def test_one_rank_alone_is_left_as_it_is(measured):
    alone = measured(repeat(experts_seen=(5,), layer_forwards=1))
    assert merge([[alone]]) == [alone]


def test_a_failure_names_its_rank_and_keeps_the_logs_of_all_that_failed(measured, point):
    broke = Failed(point=point, reason="ValueError: no", log="trace one")
    other = replace(broke, reason="MemoryError: full", log="trace two")
    (merged,) = merge([[measured(repeat())], [broke], [other]])
    assert isinstance(merged, Failed)
    assert merged.reason == "rank 1 of 3: ValueError: no; rank 2 of 3: MemoryError: full"
    assert merged.log == "== rank 1 of 3 ==\ntrace one\n== rank 2 of 3 ==\ntrace two"


def test_what_one_rank_cannot_hold_is_infeasible_unless_another_failed(measured, point):
    cannot = Infeasible(point=point, reason="too big", bytes_needed=2, bytes_available=1)
    assert merge([[measured(repeat())], [cannot]]) == [cannot]
    assert isinstance(merge([[cannot], [Failed(point=point, reason="x")]])[0], Failed)


def test_a_rank_that_says_nothing_of_a_point_fails_it(measured):
    (merged,) = merge([[], [measured(repeat())]])
    assert isinstance(merged, Failed)
    assert merged.reason.startswith("rank 0 of 2: it returned no outcome")


def test_every_point_of_a_group_comes_back_once_in_order(base, formula_engine):
    (group,) = groups(expand(base(), {"gamma": [1, 3]}), finished=())
    ranks = [measure_group(formula_engine(), group, LoadLimit()) for _ in range(2)]
    merged = merge(ranks)
    assert [o.point for o in merged] == list(group.wanted)
    assert merged[1].paired_speedups() == pytest.approx(ranks[0][1].paired_speedups())


@pytest.mark.parametrize(
    ("repeats", "message"),
    [
        pytest.param([repeat(tokens_per_forward=2)], r"gamma must be equal on all ranks; got \[3, 1\]", id="gamma"),
        pytest.param([repeat(), repeat()], r"as many repeats; got \[1, 2\]", id="repeats"),
    ],
)  # fmt: skip
def test_ranks_that_did_not_measure_the_same_are_refused(measured, repeats, message):
    with pytest.raises(ValueError, match=message):
        merge([[measured(repeat())], [measured(*repeats)]])
