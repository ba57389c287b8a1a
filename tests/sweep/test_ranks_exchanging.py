"""Ranks that share experts see each other: what they say of all together is kept."""

from __future__ import annotations

from typing import Any

import pytest

from moesd_dist.records import Repeat
from moesd_dist.sweep.ranks import merged_repeat
from tests.records.known_exchange import exchange, trace

SHARED = exchange([trace(0), trace(1)])


def repeat(**changes: Any) -> Repeat:
    values: dict[str, Any] = {
        "seconds": 2.0, "rounds": 4, "tokens": 50, "drafted": 60, "accepted": 30,
        "sequence_rounds": 20, "draft_s": 0.4, "target_s": 1.2, "reject_s": 0.2,
        "tokens_per_forward": 4, "median_target_s": 0.12, "median_draft_s": 0.04,
        "experts_seen": (50, 60), "layer_forwards": 8, "expert_load": ((1, 2), (3, 4)),
        "exchange": SHARED,
    }  # fmt: skip
    return Repeat(**(values | changes))


def test_the_exchange_of_all_ranks_is_kept_once() -> None:
    assert merged_repeat([repeat(), repeat(target_s=1.3)]).exchange is SHARED


def test_experts_of_all_tokens_together_are_known() -> None:
    merged = merged_repeat([repeat(), repeat()])
    assert (merged.experts_seen, merged.layer_forwards) == ((50, 60), 8)
    assert merged.expert_load == ((2, 4), (6, 8))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"exchange": None}, id="a rank that saw itself alone"),
        pytest.param({"experts_seen": (50, 61)}, id="other experts"),
        pytest.param({"layer_forwards": 6}, id="another number of forwards"),
    ],
)
def test_experts_stay_unknown_where_ranks_do_not_agree(other: dict[str, Any]) -> None:
    merged = merged_repeat([repeat(), repeat(**other)])
    assert (merged.experts_seen, merged.layer_forwards) == ((), 0)
