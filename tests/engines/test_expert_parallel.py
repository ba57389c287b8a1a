"""Experts on several ranks compute what one process computes: logits, tokens, routing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from moesd_dist.engines.transformers.group import Alone
from moesd_dist.models.expert_placement import placement_of
from moesd_dist.records import LayoutSpec, RankPlace
from moesd_dist.records.calibration import ALL_GATHER
from moesd_dist.theory.expert_parallel.placement import EMPTY
from tests.engines.own_ranks import on_ranks
from tests.engines.shared_experts import OUTPUT, SINGLE, balanced_by, decode

FAMILIES = ("tiny_qwen2_moe", "tiny_qwen3_moe", "tiny_mixtral", "tiny_olmoe", "tiny_deepseek_v2")

FEW = LayoutSpec(expert_placement="balanced", redundant_experts=4)
MANY = LayoutSpec(expert_placement="balanced", redundant_experts=10)  # of 8: some lie on 3 ranks

# How many sequences each rank has, and what is special.
CASES = {
    "2 ranks": ([3, 3], LayoutSpec()),
    "2 ranks, one without a sequence": ([5, 0], LayoutSpec()),
    "2 ranks, round robin": ([2, 3], LayoutSpec(expert_placement="round_robin")),
    "3 ranks, 8 experts in 9 slots": ([2, 1, 0], LayoutSpec()),
    "3 ranks, all-gather": ([2, 3, 0], LayoutSpec(all2all_backend=ALL_GATHER)),
    "4 ranks, uneven": ([2, 2, 1, 1], LayoutSpec()),
    "2 ranks, replicas": ([2, 3], FEW),
    "2 ranks, replicas, all-gather": ([2, 3], replace(FEW, all2all_backend=ALL_GATHER)),
    "4 ranks, replicas": ([2, 2, 1, 1], MANY),
    "4 ranks, replicas, all-gather": ([2, 2, 1, 1], replace(MANY, all2all_backend=ALL_GATHER)),
}
REPLICATED = {  # beside the same sequences on the same ranks with each expert once
    "2 ranks, replicas": "2 ranks, round robin",
    "2 ranks, replicas, all-gather": "2 ranks, round robin",
    "4 ranks, replicas": "4 ranks, uneven",
    "4 ranks, replicas, all-gather": "4 ranks, uneven",
}


@pytest.fixture(scope="module")
def ranks(kit, layouts):
    """Answers by rank of a case; all cases of as many ranks in the same processes."""
    known = {}

    def answers(case):
        size = len(CASES[case][0])
        if size not in known:
            mine = {name: rows for name, (rows, _) in CASES.items() if len(rows) == size}
            arguments = {n: _argument(kit, rows, layouts(n)) for n, rows in mine.items()}
            known[size] = on_ranks(size, "tests.engines.shared_experts:decode_all", arguments)
        return [rank[case] for rank in known[size]]

    return answers


@pytest.fixture(scope="module")
def layouts(alone, tmp_path_factory):
    """A case's layout by family: where loads are asked for, those that one process counted."""
    folder = tmp_path_factory.mktemp("loads")

    def layout_of(case, family):
        rows, layout = CASES[case]
        layout = replace(layout, dp_size=len(rows), ep_size=len(rows))
        if layout.expert_placement != "balanced":
            return layout
        return balanced_by(alone(case)[family]["load"], layout, folder / f"{case}-{family}.json")

    return lambda case: {family: layout_of(case, family) for family in FAMILIES}


@pytest.fixture(scope="module")
def alone(kit):
    """The same prompts in one process."""
    known = {}

    def answers(case):
        count = sum(CASES[case][0])
        if count not in known:
            single = dict.fromkeys(FAMILIES, SINGLE)
            argument = _argument(kit, [count], single)
            known[count] = decode(Alone(torch.device("cpu")), RankPlace(), **argument)
        return known[count]

    return answers


def _argument(kit, rows, layouts):
    return {"models": [(kit.spec_of(name), layouts[name]) for name in FAMILIES], "rows": rows}


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


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", REPLICATED)
def test_every_replica_takes_tokens_and_together_they_take_all(ranks, layouts, case, family):
    found = ranks(case)
    chosen = sum(rank[family]["load"] for rank in found).numpy()
    layers, experts = chosen.shape
    placement = placement_of(layouts(case)[family], layers=layers, num_experts=experts)
    taken = torch.cat([rank[family]["slots"] for rank in found], dim=1).numpy()
    for slots, row, wanted in zip(taken, placement.physical_to_logical, chosen, strict=True):
        assert np.bincount(row[row != EMPTY]).max() > placement.ranks // 2
        assert (slots > 0).tolist() == (row != EMPTY).tolist()
        assert [slots[row == expert].sum() for expert in range(experts)] == wanted.tolist()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("case", "plain"), REPLICATED.items())
def test_replicas_are_one_logical_expert_and_several_physical_ones(ranks, case, plain, family):
    """The same tokens are routed the same way, wherever the experts are."""
    window, once = (ranks(name)[0][family]["window"] for name in (case, plain))
    assert window.experts_seen == once.experts_seen
    physical, logical = (
        sum(sum(trace.activated_experts) for trace in w.exchange.ranks) for w in (window, once)
    )
    assert logical == sum(once.experts_seen)
    assert physical > logical


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
