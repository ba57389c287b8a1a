"""A step model whose parameters are known, and measurements made from it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.counts import ModelCounts
from moesd_dist.theory.routing_law import RoutingLaw
from moesd_dist.theory.steps.data import StepData
from moesd_dist.theory.steps.law import Rates
from moesd_dist.theory.steps.model import Grid, RejectLaw, RoundSeconds, StepModel

TARGET = ModelCounts(
    num_layers=4,
    hidden_size=1024,
    vocab_size=2048,
    streamed_non_expert_params=9_000_000,
    kv_values_per_token=2048,
    num_moe_layers=4,
    num_experts=64,
    top_k=8,
    expert_params=3_145_728,
)
DRAFT = ModelCounts(
    num_layers=2,
    hidden_size=192,
    vocab_size=2048,
    streamed_non_expert_params=1_100_000,
    kv_values_per_token=256,
)
MODEL = StepModel(
    target=TARGET,
    draft=DRAFT,
    target_rates=Rates(
        forward_s=2e-3,
        expert_s=8e-6,
        token_s=6e-5,
        sequence_s=1.5e-4,
        bytes_per_s=3e10,
        flops=5e11,
        expert_flops=4e11,
        overlap=1.6,
    ),
    draft_rates=Rates(
        forward_s=1e-3,
        expert_s=0.0,
        token_s=2e-5,
        sequence_s=0.0,
        bytes_per_s=2e10,
        flops=3e11,
        expert_flops=3e11,
        overlap=1.6,
    ),
    reject=RejectLaw(step_s=1e-4, sequence_s=1e-6, token_s=1.5e-6, round_s=2e-5),
    routing=RoutingLaw(popularity=14.0, fresh_share=0.8),
    draft_round_s=3e-4,
)
BATCH_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 64, 128)
GAMMAS = (1, 2, 3, 5)
TOP_K = (4, 8)
CONTEXT = 60.0
ALPHA = 0.85

# Sorted by (top_k, gamma, batch size), as `strides` takes them.
_PLACES = np.array([(k, g, b) for k in TOP_K for g in GAMMAS for b in BATCH_SIZES], dtype=float)
GRID = Grid(
    batch_size=_PLACES[:, 2], gamma=_PLACES[:, 1], top_k=_PLACES[:, 0], context_tokens=CONTEXT
)
SIGMA = np.array([sum(ALPHA**i for i in range(int(g) + 1)) / (g + 1) for g in _PLACES[:, 1]])
TRUTH: RoundSeconds = MODEL.round_seconds(GRID)
TRUE_SPEEDUP = TRUTH.speedup(SIGMA)
EVENLY_21 = np.floor(np.arange(21) * len(_PLACES) / 21).astype(int)
OTHERS = np.setdiff1d(np.arange(len(_PLACES)), EVENLY_21)


def grid_at(indices: npt.NDArray[np.intp]) -> Grid:
    place = _PLACES[indices]
    return Grid(
        batch_size=place[:, 2], gamma=place[:, 1], top_k=place[:, 0], context_tokens=CONTEXT
    )


def measured(
    *, seed: int = 0, scatter: float = 0.0, drift: float = 0.0, rounds: float = 1e4
) -> StepData:
    """The whole grid; `scatter` of every value and `drift` of a group are log deviations."""
    random = np.random.default_rng(seed)
    group = np.unique(_PLACES[:, [0, 2]], axis=0, return_inverse=True)[1].reshape(-1)
    slow = np.exp(drift * random.standard_normal(group.max() + 1))[group]
    own = {name: np.exp(scatter * random.standard_normal(len(group))) for name in "vdrne"}
    shared = {
        name: np.exp(scatter * random.standard_normal(group.max() + 1))[group] for name in "tbn"
    }
    decode = TRUTH.target_decode_s * slow * shared["t"]
    verify = TRUTH.target_verify_s * slow * own["v"]
    draft = TRUTH.draft_step_s * slow * own["d"]
    reject = TRUTH.reject_s * slow * own["r"]
    sample = TRUTH.baseline_reject_s * slow * shared["b"]
    speedup = SIGMA * (_PLACES[:, 1] + 1) * (decode + sample)
    speedup /= verify + _PLACES[:, 1] * draft + reject
    return StepData(
        batch_size=_PLACES[:, 2],
        gamma=_PLACES[:, 1],
        top_k=_PLACES[:, 0],
        group=group.astype(float),
        context_tokens=np.full(len(group), CONTEXT),
        target_decode_s=decode,
        target_verify_s=verify,
        draft_step_s=draft,
        reject_s=reject,
        baseline_reject_s=sample,
        decode_experts=TRUTH.decode_experts * shared["n"],
        verify_experts=np.minimum(64.0, TRUTH.verify_experts * own["n"]),
        sequence_rounds=np.full(len(group), rounds),
        accepted=np.array(
            [[rounds * ALPHA ** (i + 1) if i < g else 0.0 for i in range(5)] for g in _PLACES[:, 1]]
        ),
        dispersion=np.ones(len(group)),
        speedup=speedup,
        speedup_spread=np.full(len(group), scatter),
    )
