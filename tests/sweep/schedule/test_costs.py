"""What groups are expected to take: worked out by hand, learnt from measurements, put right by a sweep."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from moesd_dist.engines.transformers.engine import pool_size
from moesd_dist.engines.transformers.engine import window_tokens as window_of_the_engine
from moesd_dist.records import (
    LayoutSpec,
    Measurement,
    Protocol,
    RankPlace,
    Repeat,
    Role,
    SimulationSpec,
    SweepPoint,
    WorkloadSpec,
)
from moesd_dist.sweep.grouping import Group, engine_key, groups
from moesd_dist.sweep.schedule.costs import FlatCosts, deadline_s
from moesd_dist.sweep.schedule.earlier import EarlierRuns, ScaledRuns
from moesd_dist.sweep.schedule.formula import ByFormula
from moesd_dist.sweep.schedule.learning import LAUNCH_S, LearningCosts, Loading
from moesd_dist.sweep.schedule.pace import (
    Guess,
    Pace,
    Simulated,
    expected_length,
    group_seconds,
    prompts,
    window_rounds,
    window_tokens,
)
from moesd_dist.theory.counts import NO_MODEL, ModelCounts
from moesd_dist.theory.routing_law import UNIFORM
from moesd_dist.theory.steps.law import Rates
from moesd_dist.theory.steps.model import RejectLaw, StepModel
from tests.theory.known_steps import MODEL

Make = Callable[..., SweepPoint]
ROUNDS = 8  # of a window that an earlier run saw


def group_of(point: SweepPoint) -> Group:
    return Group(baseline=point.baseline, points=(point,), baseline_is_new=True)


def measured(point: SweepPoint, round_s: float, *, length: float = 1.0) -> Measurement:
    """Each repeat: ROUNDS rounds, a prefill of 0.1 s for 4 prompts, and a batch that ran to its end."""
    batch, protocol = point.batch_size, point.protocol
    repeat = Repeat(
        seconds=ROUNDS * round_s,
        rounds=ROUNDS,
        tokens=int(ROUNDS * batch * length),
        drafted=0,
        accepted=0,
        sequence_rounds=ROUNDS * batch,
        draft_s=0.0,
        target_s=ROUNDS * round_s,
        reject_s=0.0,
        tokens_per_forward=point.gamma + 1,
        median_target_s=round_s,
        median_draft_s=0.0,
        prefill_s=0.1,
        prompts=4,
        end_to_end_s=2 * ROUNDS * round_s,
        end_to_end_tokens=int(ROUNDS * batch * length),
    )
    repeats = (repeat,) * protocol.repeats
    return Measurement(point=point, repeats=repeats, baseline=repeats)


def earlier(found: Sequence[Measurement]) -> list[EarlierRuns | ScaledRuns]:
    runs = EarlierRuns(lambda: found)
    return [runs, ScaledRuns(runs)]


def a_second_a_token() -> StepModel:
    """A dense target whose every forward takes a second a token: rates make all else vanish."""
    rates = Rates(
        forward_s=0.0,
        expert_s=0.0,
        token_s=1.0,
        sequence_s=0.0,
        bytes_per_s=1e30,
        flops=1e30,
        expert_flops=1e30,
        overlap=math.inf,
    )
    none = RejectLaw(step_s=0.0, sequence_s=0.0, token_s=0.0, round_s=0.0)
    dense = ModelCounts(
        num_layers=1,
        hidden_size=1,
        vocab_size=1,
        streamed_non_expert_params=1,
        kv_values_per_token=1,
    )
    nothing = replace(rates, token_s=0.0)
    return StepModel(
        target=dense,
        draft=NO_MODEL,
        target_rates=rates,
        draft_rates=nothing,
        reject=none,
        routing=UNIFORM,
    )


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("tokens", [1, 192, 1000])
def test_a_window_is_as_long_as_the_engines(base: Make, batch_size: int, tokens: int) -> None:
    point = base(batch_size=batch_size, protocol=Protocol(window_tokens=tokens))
    assert window_tokens(point) == window_of_the_engine(point)
    assert prompts(point) == pytest.approx(pool_size(point, RankPlace()), abs=1.5)


@pytest.mark.parametrize(
    ("sd", "length"),
    [
        pytest.param({"synthetic_acceptance": (1.0,)}, 4.0, id="all accepted"),
        pytest.param({"synthetic_acceptance": (0.5, 0.5)}, 1.875, id="the last rate goes on"),
        pytest.param({"alpha": 0.0}, 1.0, id="an oracle that is always wrong"),
        pytest.param({}, 1 + 0.7 + 0.49 + 0.343, id="nothing is known"),
    ],
)
def test_rounds_get_fewer_as_more_is_accepted(base: Make, sd: dict, length: float) -> None:
    point = base(gamma=3, batch_size=4, protocol=Protocol(window_tokens=240))
    point = replace(point, sd=replace(point.sd, **sd))
    assert expected_length(point) == pytest.approx(length)
    assert window_rounds(point) == pytest.approx(60 / length)


@pytest.mark.parametrize(
    ("engine", "seconds"),
    [
        # 2 members x (2 warm-up rounds + 3 windows of 10 s + 1 run to the end of 20 s) + 3 prefills
        pytest.param("transformers", 2 * (2 + 30 + 20) + 3 * 5, id="one prefill serves all"),
        # 4 windows and prefills each: the first repeat runs again, watched
        pytest.param("vllm", 2 * (2 + 40 + 20) + 4 * 10, id="vLLM prefills for each"),
    ],
)
def test_a_group_is_the_sum_of_its_parts(base: Make, engine: str, seconds: float) -> None:
    pace = Pace(window_s=10.0, round_s=1.0, end_to_end_s=20.0, prefill_s=5.0)
    group = group_of(base(engine=engine, gamma=3))
    assert group_seconds(group, [pace, pace]) == seconds


def test_the_formula_multiplies_rounds_by_the_model(base: Make) -> None:
    """A second a token: a round of B=2 and gamma=1 takes 4, drafts of no model nothing."""
    model = a_second_a_token()
    point = base(gamma=1, batch_size=2, protocol=Protocol(window_tokens=100))
    point = replace(point, sd=replace(point.sd, draft=None, synthetic_acceptance=(1.0,)))
    pace = ByFormula(model_of=lambda _: model).pace(point)
    assert pace is not None
    assert (pace.round_s, pace.window_s) == (pytest.approx(4.0), pytest.approx(4.0 * 25))
    assert pace.prefill_s == pytest.approx(prompts(point) * 8)  # of 8 tokens each


def test_data_parallel_ranks_share_the_batch(base: Make) -> None:
    model = a_second_a_token()
    point = base(batch_size=8, layout=LayoutSpec(dp_size=4))
    pace = ByFormula(model_of=lambda _: model).pace(point)
    assert pace is not None
    assert pace.round_s == pytest.approx(2.0)


def test_ranks_that_share_experts_read_their_part_of_them(base: Make) -> None:
    by_formula = ByFormula(model_of=lambda _: MODEL)
    layouts = (LayoutSpec(), LayoutSpec(dp_size=4), LayoutSpec(dp_size=4, ep_size=4))
    one, copied, shared = (by_formula.pace(base(batch_size=64, layout=way)) for way in layouts)
    assert one is not None
    assert copied is not None
    assert shared is not None
    assert shared.round_s < copied.round_s < one.round_s
    assert shared.prefill_s < copied.prefill_s < one.prefill_s


def test_a_model_without_figures_is_not_known_to_the_formula(base: Make) -> None:
    assert ByFormula(model_of=lambda _: None).pace(base()) is None


def test_a_point_that_was_measured_takes_what_it_took(base: Make) -> None:
    """Under another protocol: windows of 3 x 8 tokens a sequence instead of 1 x 8, 5 repeats."""
    before = base(batch_size=4, gamma=0, protocol=Protocol(repeats=2, window_tokens=32))
    now = replace(before, protocol=Protocol(repeats=5, window_tokens=96, warmup_rounds=1))
    now = replace(now.baseline)
    costs = LearningCosts(earlier([measured(before.baseline, 0.5)]))
    group = Group(baseline=now, points=(), baseline_is_new=True)
    windows, prefill = 5 * 24 * 0.5, 5 * 0.1 / 4 * prompts(now)
    assert costs.group_s(group) == pytest.approx(0.5 + windows + 16 * 0.5 + prefill)
    assert costs.source_of(group) == "earlier runs"


@pytest.mark.parametrize(
    ("known", "batch", "gamma", "round_s"),
    [
        pytest.param({(1, 0): 1.0, (4, 0): 2.0}, 2, 0, math.sqrt(2), id="between two"),
        pytest.param({(4, 0): 2.0, (16, 0): 4.0}, 64, 0, 8.0, id="beyond, by their trend"),
        pytest.param({(4, 0): 2.0}, 16, 0, 4.0, id="a single one, by the usual power"),
        pytest.param(
            {(4, 0): 1.0, (4, 1): 2.0, (16, 0): 2.0}, 16, 1, 4.0, id="a gamma by its baselines"
        ),
    ],
)
def test_a_point_between_measured_ones_is_scaled(base: Make, known, batch, gamma, round_s) -> None:
    found = [
        measured(p if g else p.baseline, s)
        for (b, g), s in known.items()
        for p in [base(batch_size=b, gamma=g)]
    ]
    exact, scaled = earlier(found)
    point = base(batch_size=batch, gamma=gamma)
    point = point if gamma else point.baseline
    assert exact.pace(point) is None
    pace = scaled.pace(point)
    assert pace is not None
    assert pace.round_s == pytest.approx(round_s, rel=0.25)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"hardware": "H200"}, id="hardware"),
        pytest.param({"threads": 2}, id="threads"),
        pytest.param({"engine": "vllm"}, id="engine"),
        pytest.param({"layout": LayoutSpec(tp_size=2)}, id="layout"),
    ],
)
def test_other_places_tell_nothing(base: Make, other: dict) -> None:
    exact, scaled = earlier([measured(base().baseline, 1.0)])
    there = base(**other).baseline
    assert (exact.pace(there), scaled.pace(there)) == (None, None)


def test_baselines_alone_do_not_tell_what_drafting_costs(base: Make) -> None:
    exact, scaled = earlier([measured(base().baseline, 1.0)])
    assert (exact.pace(base(gamma=3)), scaled.pace(base(gamma=3))) == (None, None)


def test_simulated_and_untimed_runs_tell_nothing(base: Make) -> None:
    simulated = base(engine="analytic", simulation=SimulationSpec()).baseline
    untimed = base(cpu_fixes=True, layout=LayoutSpec(dp_size=2), engine="vllm").baseline
    runs = EarlierRuns(lambda: [measured(simulated, 1.0), measured(untimed, 1.0)])
    assert runs.samples == []


def test_a_group_is_known_no_better_than_its_worst_point(base: Make) -> None:
    """The baseline was measured, gamma 3 was not, and nothing else is known of it."""
    costs = LearningCosts(earlier([measured(base().baseline, 1.0)]))
    assert costs.source_of(group_of(base(gamma=3))) == ""


def test_a_sweep_that_takes_longer_puts_the_rest_right(base: Make) -> None:
    costs = LearningCosts([])
    first, other = (group_of(base(gamma=3, batch_size=b)) for b in (4, 16))
    before = costs.group_s(other)
    costs.observed(first, 3.0 * costs.group_s(first))
    assert costs.group_s(other) == pytest.approx(3.0 * before)
    assert costs.source_of(other) == "a guess, put right by this sweep"


def test_one_slow_group_among_many_does_not_move_the_rest(base: Make) -> None:
    costs = LearningCosts([])
    done, left = [group_of(base(gamma=3, batch_size=b)) for b in (1, 2, 4)], group_of(base(gamma=1))
    before = costs.group_s(left)
    for group, times in zip(done, (50.0, 1.0, 1.0), strict=True):  # the first also loaded
        costs.observed(group, times * LearningCosts([]).group_s(group))
    assert costs.group_s(left) == pytest.approx(before)


def test_an_engine_goes_by_its_own_groups_first(base: Make) -> None:
    costs = LearningCosts([])
    small, large = group_of(base(gamma=3)), group_of(base(gamma=3, layout=LayoutSpec(tp_size=2)))
    costs.observed(small, 2.0 * costs.group_s(small))
    doubled = costs.group_s(large)
    costs.observed(large, 10.0 * LearningCosts([]).group_s(large))
    assert costs.group_s(large) == pytest.approx(5.0 * doubled)
    assert costs.group_s(small) == pytest.approx(2.0 * LearningCosts([]).group_s(small))


def test_a_simulated_group_takes_milliseconds(base: Make) -> None:
    point = base(engine="analytic", simulation=SimulationSpec(), gamma=3)
    costs = LearningCosts([Simulated()])
    assert costs.group_s(group_of(point)) < 0.02
    assert costs.source_of(group_of(point)).startswith("simulated")


def test_starts_read_weights_and_vllm_starts_for_each_setting(base: Make) -> None:
    key = engine_key(group_of(base(gamma=3, engine="vllm")))
    costs = LearningCosts([], {key: Loading(llms=3, weight_bytes=30e9)})
    assert costs.start_s(key) == pytest.approx(3 * LAUNCH_S["vllm"] + 30.0)


@pytest.mark.parametrize(
    ("group_s", "start_s", "deadline"),
    [
        pytest.param(1.0, 1.0, 900.0, id="never shorter than the least"),
        pytest.param(200.0, 50.0, 2500.0, id="ten times group and start"),
    ],
)
def test_a_deadline_covers_the_start(base: Make, group_s, start_s, deadline) -> None:
    costs = FlatCosts(group=group_s, start=start_s)
    assert deadline_s(costs, group_of(base(gamma=1)), factor=10.0, least_s=900.0) == deadline


def test_ten_thousand_simulated_groups_cost_a_second(base: Make) -> None:
    """Expectations are asked for before anything runs, so they have to be cheap."""
    point = base(engine="analytic", simulation=SimulationSpec())
    work = WorkloadSpec(name="random", prompt_tokens_min=8, prompt_tokens_max=8, output_tokens=8)
    many = [replace(point.baseline, workload=replace(work, seed=n)) for n in range(5000)]
    todo = groups([replace(p, role=Role.baseline) for p in many], ())
    costs = LearningCosts([Simulated()])
    began = time.perf_counter()
    assert sum(map(costs.group_s, todo)) < 5000 * 0.02
    assert time.perf_counter() - began < 5.0


def test_a_guess_grows_with_the_work(base: Make) -> None:
    small = base(protocol=Protocol(window_tokens=8))
    large = replace(small, protocol=Protocol(window_tokens=800))
    assert Guess().pace(large).window_s > Guess().pace(small).window_s
