"""The chooser learns more from its points than chance does, and stops when it is told to."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from moesd_dist.sweep.adaptive.choice import Known, Outlook, contrasts, expected_regret
from moesd_dist.sweep.adaptive.pool import fill, pool_of
from moesd_dist.sweep.grid import expand
from moesd_dist.theory.choices.design import Objective
from moesd_dist.theory.counts import ModelCounts
from moesd_dist.theory.routing_law import RoutingLaw
from moesd_dist.theory.steps.data import StepData
from moesd_dist.theory.steps.fit import fit_steps
from moesd_dist.theory.steps.law import Rates
from moesd_dist.theory.steps.model import Grid, RejectLaw, StepModel

TARGET = ModelCounts(
    num_layers=8, hidden_size=1024, vocab_size=2048, streamed_non_expert_params=60_000_000,
    kv_values_per_token=4096, num_moe_layers=8, num_experts=64, top_k=8, expert_params=800_000,
)  # fmt: skip
DRAFT = ModelCounts(
    num_layers=2, hidden_size=256, vocab_size=2048, streamed_non_expert_params=4_000_000,
    kv_values_per_token=512,
)  # fmt: skip
RATES = Rates(
    forward_s=1e-3, expert_s=2e-6, token_s=2e-5, sequence_s=1e-5, bytes_per_s=1.5e10,
    flops=1e11, expert_flops=6e10, overlap=2.5,
)  # fmt: skip
TRUTH = StepModel(
    target=TARGET,
    draft=DRAFT,
    target_rates=RATES,
    draft_rates=replace(RATES, forward_s=3e-4, expert_s=0.0),
    reject=RejectLaw(step_s=2e-4, sequence_s=1e-6, token_s=1e-6, round_s=1e-4),
    routing=RoutingLaw(popularity=25.0, fresh_share=0.7),
)
RATE = 0.75  # every draft token's chance
AXES = {"top_k": [4, 8], "batch_size": [1, 2, 4, 8, 16, 32, 64, 128], "gamma": [1, 3, 5]}


@pytest.fixture
def pool(base):
    return pool_of(expand(base(), AXES), own_top_k=8)


def measured(pool, seed: int, scatter: float = 0.03) -> StepData:
    """Every point of the pool as the true model and log-normal noise would have it."""
    rng = np.random.default_rng(seed)
    times = TRUTH.round_seconds(grid(pool))
    rounds = np.round(pool.tokens / acceptance_length(pool))
    reached = RATE ** np.arange(1, 6) * (np.arange(5) < pool.gamma[:, None])

    def noisy(seconds, *, shared=False):
        drawn = rng.normal(0.0, scatter, len(pool))
        return seconds * np.exp(drawn[pool.group] if shared else drawn)

    return StepData(
        batch_size=pool.batch_size,
        gamma=pool.gamma,
        top_k=pool.top_k,
        group=pool.group,
        context_tokens=np.full(len(pool), 60.0),
        target_decode_s=noisy(times.target_decode_s, shared=True),
        target_verify_s=noisy(times.target_verify_s),
        draft_step_s=noisy(times.draft_step_s),
        reject_s=noisy(times.reject_s),
        baseline_reject_s=noisy(times.baseline_reject_s, shared=True),
        decode_experts=times.decode_experts,
        verify_experts=times.verify_experts,
        sequence_rounds=rounds,
        accepted=np.floor(rounds[:, None] * reached),
        dispersion=np.ones(len(pool)),
        speedup=times.speedup(acceptance_length(pool) / (pool.gamma + 1.0)),
        speedup_spread=np.zeros(len(pool)),
    )


def grid(pool):
    return Grid(batch_size=pool.batch_size, gamma=pool.gamma, top_k=pool.top_k, context_tokens=60.0)


def acceptance_length(pool):
    return (1.0 - RATE ** (pool.gamma + 1.0)) / (1.0 - RATE)


def known(data, places) -> Known:
    seen = data.take(places)
    fit = fit_steps(seen, target=TARGET, draft=DRAFT)
    return Known(places=np.array(places, dtype=np.intp), data=seen, fit=fit)


def candidates(pool, places):
    return ~np.isin(np.arange(len(pool)), places)


def begin(pool, count=4):
    return fill(pool, np.zeros(len(pool), bool), np.ones(len(pool), bool), count)


def grown(pool, data, count, objective=Objective.fit):
    places = begin(pool)
    while len(places) < count:
        outlook = Outlook(pool, known(data, places))
        places += outlook.choose(objective, candidates(pool, places), 2)
    return places


def error(pool, data, places) -> float:
    found = known(data, places).fit.model.round_seconds(grid(pool))
    sigma = acceptance_length(pool) / (pool.gamma + 1.0)
    return float(np.abs(found.speedup(sigma) / data.speedup - 1.0).mean())


def test_the_start_spans_the_axes_and_holds_every_top_k(pool):
    chosen = begin(pool)
    assert {pool.batch_size[i] for i in chosen} >= {1.0, 128.0}
    assert {pool.gamma[i] for i in chosen} >= {1.0, 5.0}
    assert {pool.top_k[i] for i in chosen} == {4.0, 8.0}
    assert begin(pool) == chosen


def test_the_start_goes_on_where_it_was_cut_short(pool):
    chosen = begin(pool)
    done = np.isin(np.arange(len(pool)), chosen[:2])
    assert fill(pool, done, ~done, 2) == chosen[2:]


def test_chosen_points_predict_better_than_random_ones(pool):
    ours, random = [], []
    for seed in range(6):
        data, rng = measured(pool, seed), np.random.default_rng(seed)
        ours.append(error(pool, data, grown(pool, data, 10)))
        random += [error(pool, data, rng.choice(len(pool), 10, replace=False)) for _ in range(4)]
    assert np.mean(ours) < np.mean(random)
    assert np.max(ours) < np.max(random)


@pytest.mark.parametrize("objective", Objective)
def test_the_choice_is_new_repeatable_and_reduces_what_it_is_for(pool, objective):
    data, places = measured(pool, 0), begin(pool)
    outlook = Outlook(pool, known(data, places))
    chosen = outlook.choose(objective, candidates(pool, places), 6)
    assert len(set(chosen) | set(places)) == 10
    assert outlook.choose(objective, candidates(pool, places), 6) == chosen
    after = Outlook(pool, known(data, places + chosen)).doubt()
    assert after.of(objective) < outlook.doubt().of(objective)


def test_a_point_of_a_measured_group_brings_no_new_baseline(pool):
    data, places = measured(pool, 0), begin(pool)
    found = known(data, places)
    parts = Outlook(pool, found)._parts
    shared = np.isin(pool.group, pool.group[places])
    assert not parts[0].rows[shared, 0].any()
    assert parts[0].rows[~shared, 0].any(axis=1).all()
    assert parts[0].rows[:, 1].any(axis=1).all()


def test_what_a_measurement_teaches_is_what_the_next_fit_knows(pool):
    """The foreseen variances are those of a fit that has seen the point, its noise the same."""
    data, places = measured(pool, 3), begin(pool, 12)
    before = Outlook(pool, known(data, places))
    taught = np.linalg.inv(before._parts[0].covariance[:8, :8]) - np.eye(8)
    fitted = known(data, places).fit.parts["target"]
    # The fit uses measured experts, the outlook expected ones, and drift is a parameter of its own.
    assert np.diag(taught) == pytest.approx(np.diag(fitted.information), rel=0.1, abs=0.5)


def test_choosing_among_hundreds_takes_no_time(base):
    axes = {"top_k": [2, 4, 8], "batch_size": list(range(1, 101, 5)), "gamma": [1, 2, 3, 4, 5]}
    pool = pool_of(expand(base(), axes), own_top_k=8)
    data = measured(pool, 0)
    places = begin(pool, 8)
    found, began = known(data, places), time.perf_counter()
    Outlook(pool, found).choose(Objective.recommendation, candidates(pool, places), 2)
    assert len(pool) == 300
    assert time.perf_counter() - began < 5.0  # under a second on an idle core


def test_contrasts_hold_the_leader_against_its_rivals_and_against_plain_decoding():
    logs, group = np.log([1.2, 1.5, 0.8, 0.9]), np.array([0, 0, 1, 1])
    rows, margin = contrasts(logs, group)
    assert rows.tolist() == [[0, 1, 0, 0], [-1, 1, 0, 0], [0, 0, -1, 0], [0, 0, 0, -1]]
    assert np.exp(margin) == pytest.approx([1.5, 1.25, 1 / 0.8, 1 / 0.9])


def test_expected_regret_is_the_mean_of_what_the_rival_gains():
    drawn = np.random.default_rng(0).normal(-0.05, 0.1, 400_000)
    found = expected_regret(np.array([0.01]), np.array([0.05]))
    assert found[0] == pytest.approx(np.maximum(0.0, drawn).mean(), rel=0.02)
    assert expected_regret(np.array([0.0]), np.array([0.0]))[0] == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        pytest.param({"batch_size": [8], "gamma": [1, 3]}, "several batch sizes", id="one batch"),
        pytest.param({"batch_size": [1, 8], "gamma": [0]}, "one above 0", id="no SD point"),
        pytest.param(
            {"batch_size": [1, 8], "gamma": [1], "threads": [1, 2]}, "one target, draft", id="mixed"
        ),
    ],
)
def test_a_pool_that_nothing_can_choose_from_is_refused(base, axes, message):
    with pytest.raises(ValueError, match=message):
        pool_of(expand(base(), axes), own_top_k=8)
