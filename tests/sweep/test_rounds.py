"""An adaptive sweep measures what it chose, once, and goes on wherever it was stopped."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from moesd_dist.records import Role
from moesd_dist.sweep.adaptive.rounds import AdaptivePlan, AdaptiveRule
from moesd_dist.sweep.driver import InlineExecutor, run_sweep
from moesd_dist.sweep.grid import expand
from moesd_dist.sweep.ledger import Ledger
from moesd_dist.sweep.pairing import LoadLimit
from moesd_dist.theory.choices.design import Objective
from moesd_dist.theory.counts import ModelCounts
from moesd_dist.tracking.memory import MemoryTracker

DRAFT = ModelCounts(
    num_layers=1, hidden_size=8, vocab_size=64, streamed_non_expert_params=10_000,
    kv_values_per_token=16,
)  # fmt: skip
TARGET = replace(DRAFT, num_moe_layers=1, num_experts=64, top_k=8, expert_params=1000)
POOL = {"batch_size": [1, 2, 4, 8, 16, 32, 64], "gamma": [1, 2, 4]}


@pytest.fixture
def timed(formula_engine):
    """The formula engine with seconds that a fit can take: none of them 0, growing with the batch."""

    class Timed(formula_engine):
        def measure(self, point, repeat):
            found = super().measure(point, repeat)
            tokens = point.batch_size * (point.gamma + 1)
            seconds = {
                "target_s": 4 * 1e-3 * (4.0 + 0.05 * tokens),
                "draft_s": 4 * point.gamma * (2e-4 + 1e-6 * point.batch_size),
                "reject_s": 4 * (1e-4 + 1e-6 * point.batch_size),
            }
            experts = int(4 * 64 * (1.0 - (1.0 - 8 / 64) ** tokens))
            return replace(
                found,
                seconds=sum(seconds.values()),
                experts_seen=(experts,),
                layer_forwards=4,
                mean_context=16.0,
                **seconds,
            )

    return Timed


@pytest.fixture
def adaptive(base, silent):
    """Runs an adaptive sweep: (tracker, engine, changes of the rule) to its result."""

    def run(tracker, engine, *, axes=POOL, progress=silent, **changes):
        points = expand(base(), axes)
        tracker.open("id", "name", points)
        executor = InlineExecutor(lambda _: engine, lambda _: LoadLimit())
        return run_sweep(points, Ledger(tracker), executor, progress, plan(points, **changes))

    return run


def plan(points, **changes) -> AdaptivePlan:
    fields = {
        "objective": Objective.fit, "start": 4, "per_round": 2, "budget": 8, "target_interval": 0.0,
    }  # fmt: skip
    rule = AdaptiveRule(**(fields | changes))
    return AdaptivePlan(points, rule, target=TARGET, draft=DRAFT)


def chosen(result) -> list[tuple[int, int]]:
    measured = [m.point for m in result.measurements if m.point.role is Role.sd]
    return [(p.batch_size, p.gamma) for p in measured]


def times_measured(*engines) -> Counter:
    return Counter((b, g) for e in engines for b, g, repeat in e.log if g and repeat == 0)


@pytest.mark.parametrize("objective", Objective)
def test_it_spends_its_budget_and_says_so(adaptive, timed, objective):
    engine = timed()
    result = adaptive(MemoryTracker(), engine, objective=objective, target_interval=-1.0)
    assert len(chosen(result)) == 8
    assert set(times_measured(engine).values()) == {1}
    assert result.ending.startswith(
        "measured 8 of 21 SD points: the budget is spent; mean interval"
    )


def test_every_chosen_point_brings_its_baseline_and_a_group_only_one(adaptive, timed):
    tracker = MemoryTracker()
    result = adaptive(tracker, timed())
    baselines = [o.point.batch_size for o in result.outcomes if o.point.role is Role.baseline]
    assert sorted(baselines) == sorted({batch for batch, _ in chosen(result)})


def test_it_stops_when_the_interval_is_narrow_enough(adaptive, timed):
    result = adaptive(MemoryTracker(), timed(), target_interval=10.0)
    assert len(chosen(result)) == 4
    assert "the target is reached" in result.ending


def test_it_stops_when_nothing_is_left(adaptive, timed):
    axes = {"batch_size": [1, 8, 64], "gamma": [1, 2]}
    result = adaptive(MemoryTracker(), timed(), axes=axes, budget=20)
    assert len(chosen(result)) == 6
    assert "nothing is left to measure" in result.ending


def test_the_same_sweep_chooses_the_same_points(adaptive, timed):
    first, second = (adaptive(MemoryTracker(), timed()) for _ in range(2))
    assert chosen(first) == chosen(second)


def test_killed_between_rounds_it_goes_on_as_if_it_had_not_been(adaptive, timed, silent):
    class Stops(type(silent)):
        def begin_round(self, planned):
            if planned.why.startswith("round 3"):
                raise KeyboardInterrupt

    tracker, first, second = MemoryTracker(), timed(), timed()
    with pytest.raises(KeyboardInterrupt):
        adaptive(tracker, first, progress=Stops())
    resumed = adaptive(tracker, second)
    assert chosen(resumed) == chosen(adaptive(MemoryTracker(), timed()))
    assert set(times_measured(first, second).values()) == {1}


def test_killed_inside_a_round_it_measures_nothing_twice(adaptive, timed):
    class Dies(timed):
        def measure(self, point, repeat):
            if len(times_measured(self)) == 6 and point.gamma:
                raise KeyboardInterrupt
            return super().measure(point, repeat)

    tracker, second = MemoryTracker(), timed()
    with pytest.raises(KeyboardInterrupt):
        adaptive(tracker, Dies())
    before = {(o.point.batch_size, o.point.gamma) for o in tracker.outcomes}
    result = adaptive(tracker, second)
    assert result.reused == len(before)
    assert len(chosen(result)) == 8
    assert not before & times_measured(second).keys()


def test_a_larger_budget_goes_on_with_the_same_sweep(adaptive, timed):
    tracker = MemoryTracker()
    small = adaptive(tracker, timed(), budget=6)
    large = adaptive(tracker, timed(), budget=8)
    assert set(chosen(small)) < set(chosen(large))
    assert large.reused == len(small.outcomes)


def test_points_that_do_not_fit_or_break_leave_the_pool(adaptive, timed):
    result = adaptive(MemoryTracker(), timed(memory=32, breaks_at=1))
    assert len(chosen(result)) == 8
    assert {o.point.batch_size for o in result.infeasible} == {64}
    assert {o.point.batch_size for o in result.failed} == {1}
    assert not {1, 64} & {batch for batch, _ in chosen(result)}


def test_without_a_fit_it_goes_on_filling_the_space_and_says_why(adaptive, timed):
    axes = {"batch_size": [1, 2], "gamma": [1, 2, 3, 4, 5, 6]}
    result = adaptive(MemoryTracker(), timed(memory=1), axes=axes, budget=5)
    assert len(chosen(result)) == 5
    assert "no fit: a fit needs several batch sizes" in result.ending


def test_one_engine_serves_all_rounds(base, timed, silent):
    made = []

    def make(key):
        made.append(key)
        return timed()

    points, tracker = expand(base(), POOL), MemoryTracker()
    tracker.open("id", "name", points)
    run_sweep(
        points, Ledger(tracker), InlineExecutor(make, lambda _: LoadLimit()), silent, plan(points)
    )
    assert len(made) == 1


def test_a_start_too_small_for_every_setting_is_refused(base):
    points = expand(base(), {"top_k": [1, 2, 4, 8, 16], "batch_size": [1, 2], "gamma": [1]})
    with pytest.raises(ValueError, match="start 4 is below the 5 combinations"):
        plan(points)
