"""Ranks deal tokens to replicas as the simulation does that forecasts are made from."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from moesd_dist.engines.transformers.expert_exchange import ExpertExchange
from moesd_dist.engines.transformers.traces import TraceRecorder
from moesd_dist.theory.expert_parallel.balanced import balanced
from moesd_dist.theory.expert_parallel.sampling import counted, draw_choices
from moesd_dist.theory.expert_parallel.simulation import Slots, turns

EXPERTS, TOP_K, LAYERS = 16, 4, 2


@pytest.mark.parametrize(("ranks", "redundant"), [(2, 0), (2, 5), (4, 16), (5, 40)])
@pytest.mark.parametrize(("sequences", "each"), [(8, 1), (7, 4), (3, 3)])
def test_the_engine_and_the_simulation_choose_the_same_replicas(ranks, redundant, sequences, each):
    rng = np.random.default_rng(ranks + sequences)
    place = balanced(rng.pareto(1.0, (LAYERS, EXPERTS)), ranks=ranks, redundant=redundant)
    chosen = draw_choices(rng, np.ones(EXPERTS), top_k=TOP_K, draws=1, tokens=sequences * each)
    sizes = [each * (sequences // ranks + (r < sequences % ranks)) for r in range(ranks)]
    own = np.split(chosen[0], np.cumsum(sizes)[:-1])
    for layer in range(LAYERS):
        by_rank = [_physical(place, rank, layer, tokens) for rank, tokens in enumerate(own)]
        engine = counted(np.concatenate(by_rank)[None], place.physical_to_logical.shape[1])
        simulated = Slots(place, layer).loads(chosen, turns(sequences, each, ranks))
        assert engine.tolist() == simulated.tolist()


def _physical(place, rank, layer, chosen):
    group = SimpleNamespace(rank=rank, size=place.ranks, device=torch.device("cpu"))
    exchange = ExpertExchange(group, place, TraceRecorder(), "")
    return exchange._physical(layer, torch.from_numpy(chosen)).numpy()
