"""Experts on several ranks compute what one process computes: logits, tokens, routing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from moesd_dist.engines.transformers.group import Alone
from moesd_dist.records import LayoutSpec, RankPlace
from moesd_dist.records.calibration import ALL_GATHER
from tests.engines.own_ranks import on_ranks
from tests.engines.shared_experts import OUTPUT, SINGLE, decode

FAMILIES = ("tiny_qwen2_moe", "tiny_qwen3_moe", "tiny_mixtral", "tiny_olmoe", "tiny_deepseek_v2")

# How many sequences each rank has, and what is special.
CASES = {
    "2 ranks": ([3, 3], LayoutSpec()),
    "2 ranks, one without a sequence": ([5, 0], LayoutSpec()),
    "2 ranks, round robin": ([2, 3], LayoutSpec(expert_placement="round_robin")),
    "3 ranks, 8 experts in 9 slots": ([2, 1, 0], LayoutSpec()),
    "3 ranks, all-gather": ([2, 3, 0], LayoutSpec(all2all_backend=ALL_GATHER)),
    "4 ranks, uneven": ([2, 2, 1, 1], LayoutSpec()),
}


@pytest.fixture(scope="module")
def ranks(kit):
    """Answers by rank of a case; all cases of as many ranks in the same processes."""
    known = {}

    def answers(case):
        size = len(CASES[case][0])
        if size not in known:
            mine = {name: c for name, c in CASES.items() if len(c[0]) == size}
            arguments = {name: _argument(kit, *c) for name, c in mine.items()}
            known[size] = on_ranks(size, "tests.engines.shared_experts:decode_all", arguments)
        return [rank[case] for rank in known[size]]

    return answers


@pytest.fixture(scope="module")
def alone(kit):
    """The same prompts in one process."""
    known = {}

    def answers(case):
        count = sum(CASES[case][0])
        if count not in known:
            known[count] = decode(
                Alone(torch.device("cpu")), RankPlace(), **_argument(kit, [count], SINGLE)
            )
        return known[count]

    return answers


def _argument(kit, rows, layout):
    layout = replace(layout, dp_size=len(rows), ep_size=len(rows))
    return {"specs": [kit.spec_of(name) for name in FAMILIES], "layout": layout, "rows": rows}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_one_process(alone, ranks, case, family):
    found = torch.cat([rank[family]["logits"] for rank in ranks(case)])
    assert float((found - alone(case)[family]["logits"]).abs().max()) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", CASES)
def test_greedy_tokens_are_those_of_one_process(alone, ranks, case, family):
    truth = alone(case)[family]
    for kind in ("plain", "speculated"):
        assert [row for rank in ranks(case) for row in rank[family][kind]] == truth[kind]
    assert truth["plain"] == truth["speculated"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", CASES)
def test_every_chosen_expert_is_computed_once_and_on_its_rank(alone, ranks, case, family):
    found, truth = ranks(case), alone(case)[family]["window"]
    windows = [rank[family]["window"] for rank in found]
    assert all(window.experts_seen == windows[0].experts_seen for window in windows)
    exchange = windows[0].exchange
    computed = torch.tensor([trace.load for trace in exchange.ranks]).sum(0)
    chosen = sum(rank[family]["load"] for rank in found)
    assert computed.tolist() == chosen.sum(1).tolist()
    tokens = sum(trace.gate_tokens for trace in exchange.ranks)
    assert chosen.sum() % tokens == 0
    # Plain decoding and speculation of fixed lengths; the rounds of fast rows go on, so at least.
    assert tokens >= sum(CASES[case][0]) * OUTPUT * 2
    assert truth.exchange.forwards <= exchange.forwards


@pytest.mark.parametrize("case", CASES)
def test_rows_sent_are_rows_received_by_others(ranks, case):
    for family in FAMILIES:
        traces = ranks(case)[0][family]["window"].exchange.ranks
        for trace in traces:  # a token goes once to a rank, however many of its experts are there
            others = len(traces) - 1
            if "all-gather" not in case:
                assert all(rows <= trace.gate_tokens * others for rows in trace.sent_rows)
        for layer in range(len(traces[0].load)):
            sent = sum(trace.sent_rows[layer] for trace in traces)
            assert sent == sum(trace.received_rows[layer] for trace in traces) > 0
            sent_bytes = sum(trace.sent_bytes[layer] for trace in traces)
            assert sent_bytes == sum(trace.received_bytes[layer] for trace in traces) > 0


@pytest.mark.parametrize("case", CASES)
def test_no_phase_is_negative_and_experts_take_time(ranks, case):
    for family in FAMILIES:
        for trace in ranks(case)[0][family]["window"].exchange.ranks:
            for phase in ("pack_s", "dispatch_s", "expert_s", "combine_s", "wait_arrival_s"):
                assert all(seconds >= 0.0 for seconds in getattr(trace, phase))
            assert sum(trace.expert_s) > 0.0


def test_an_idle_rank_lends_its_experts(ranks):
    idle = ranks("2 ranks, one without a sequence")[0]["tiny_qwen2_moe"]["window"].exchange.ranks[1]
    assert idle.gate_tokens == 0
    assert sum(idle.sent_rows) == 0
    assert sum(idle.load) > 0


def test_bytes_are_rows_of_hidden_states_choices_and_weights(ranks):
    """Float32, 64 wide, top 2: out with 8 bytes a choice, back as a sum alone."""
    out, back = 64 * 4 + 2 * 8, 64 * 4
    for trace in ranks("2 ranks")[0]["tiny_qwen2_moe"]["window"].exchange.ranks:
        for layer, (sent, received) in enumerate(
            zip(trace.sent_rows, trace.received_rows, strict=True)
        ):
            assert trace.sent_bytes[layer] == sent * out + received * back
            assert trace.received_bytes[layer] == received * out + sent * back
