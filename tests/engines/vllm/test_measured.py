"""Real vLLM through the engine: every drafting method of a CPU at two gammas, and their baseline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from moesd_dist.records import (
    Device,
    DraftMethod,
    Measurement,
    Protocol,
    RankPlace,
    Repeat,
    SdSpec,
    SweepPoint,
)
from moesd_dist.sweep.statistics import metrics
from moesd_dist.workloads.prompts import draw_prompts
from tests.engines.vllm.points import PAIR, TARGET, point

GAMMAS = (2, 3)
ALPHA = 0.8
RATES = (0.9, 0.6)
METHODS = {
    "ngram": SdSpec(method=DraftMethod.ngram, ngram_min=1, ngram_max=3),
    "draft_model": PAIR,
    "oracle": SdSpec(method=DraftMethod.oracle, alpha=ALPHA),
    "synthetic": replace(PAIR, synthetic_acceptance=RATES),
}
LOSSLESS = [name for name in METHODS if name != "synthetic"]
TOLERANCE = 0.02  # the bar; 6,000 rounds have a standard error of 0.005


@pytest.fixture(scope="module")
def engine(cpu_fixed: dict[str, str]) -> Iterator[object]:
    from moesd_dist.engines.vllm.engine import VllmEngine
    from moesd_dist.engines.vllm.host import Timeouts

    made = VllmEngine(
        device=Device.cpu, place=RankPlace(), timeouts=Timeouts(start_s=180, answer_s=120)
    )
    yield made
    made.close()


def of(method: str, gamma: int, **changes: object) -> SweepPoint:
    return point(sd=METHODS[method], gamma=gamma, cpu_fixes=True, **changes)


def many(method: str, gamma: int) -> SweepPoint:
    """Six batches of 64 sequences that write 48 tokens each."""
    work = replace(point().workload, output_tokens=48)
    protocol = Protocol(repeats=1, warmup_rounds=1, window_tokens=6 * 64 * 48, end_to_end_repeats=0)
    return of(method, gamma, batch_size=64, workload=work, protocol=protocol)


def acceptance(repeat: Repeat) -> list[float]:
    return [count / repeat.sequence_rounds for count in repeat.accepted_per_position]


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("method", METHODS)
def test_a_point_is_measured_with_every_phase_on_the_clock(engine, method: str, gamma: int) -> None:
    wanted = of(method, gamma)
    repeats = {}
    for each in (wanted.baseline, wanted):
        engine.warm_up(each)
        repeats[each] = engine.measure(each, 0)
    found, plain = repeats[wanted], repeats[wanted.baseline]
    assert found.target_s > 0
    assert found.reject_s > 0
    assert found.draft_s > plain.draft_s == 0
    assert found.seconds == pytest.approx(
        found.target_s + found.reject_s + found.draft_s + found.overhead_s
    )
    assert found.tokens == found.accepted + found.sequence_rounds
    assert plain.tokens == plain.sequence_rounds == 4 * plain.rounds
    assert found.layer_forwards > 0
    record = Measurement(point=wanted, repeats=(found,), baseline=(plain,), num_experts=64, top_k=8)
    assert metrics(record)["target_efficiency"] > 0


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("method", LOSSLESS)
def test_greedy_outputs_are_those_of_the_baseline(engine, method: str, gamma: int) -> None:
    wanted = of(method, gamma)
    prompts = draw_prompts(wanted.workload, count=4, repeat=0, encode=encoder(), vocab_size=2048)
    engine.measure(wanted, 0)  # gives an oracle its references
    outputs = [
        engine.llm(each).call("generate", prompts=prompts, tokens=24, temperature=0.0)
        for each in (wanted.baseline, wanted)
    ]
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("gamma", GAMMAS)
def test_an_oracle_is_accepted_as_often_as_it_was_told(engine, gamma: int) -> None:
    repeat = engine.measure(many("oracle", gamma), 0)
    assert repeat.sequence_rounds > 5000
    theory = [ALPHA ** (place + 1) for place in range(gamma)]
    assert acceptance(repeat) == pytest.approx(theory, abs=TOLERANCE)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_synthetic_acceptance_is_the_conditional_rates_given(engine, gamma: int) -> None:
    repeat = engine.measure(many("synthetic", gamma), 0)
    theory = [RATES[0], RATES[0] * RATES[1], RATES[0] * RATES[1] ** 2][:gamma]
    assert acceptance(repeat) == pytest.approx(theory, abs=TOLERANCE)


def test_the_router_is_seen_to_choose_what_the_config_says(engine) -> None:
    wanted = of("draft_model", 3)
    found = engine.measure(wanted, 0)
    assert engine.routing(wanted) == (64, 8)
    per_forward = sum(map(sum, found.expert_load)) / found.layer_forwards
    assert per_forward == pytest.approx(
        4 * 4 * 8, rel=0.2
    )  # batch x tokens x top_k, some finish early
    experts = sum(found.experts_seen) / found.layer_forwards
    assert 8 < experts < 64


def test_vllms_own_counters_agree_with_the_probe(engine) -> None:
    wanted = of("draft_model", 3)
    llm = engine.llm(wanted)
    prompts = draw_prompts(wanted.workload, count=4, repeat=1, encode=encoder(), vocab_size=2048)
    before = llm.call("counters")
    steps = llm.call("steps", prompts=prompts, tokens=24)
    after = llm.call("counters")
    drafted = [count for step in steps for count in step["drafted"] if count]
    accepted = sum(
        emitted - 1
        for step in steps
        for emitted, drafts in zip(step["emitted"], step["drafted"], strict=True)
        if drafts
    )
    name = "spec_decode_num_accepted_tokens"
    assert after[name][0] - before[name][0] == pytest.approx(accepted, abs=4)  # the last is cut
    name = "spec_decode_num_drafts"
    assert after[name][0] - before[name][0] == len(drafted)


def test_a_repeat_of_one_engine_sees_the_same_prompts_again(engine) -> None:
    wanted = of("ngram", 2)
    first, again = engine.measure(wanted, 1), engine.measure(wanted, 1)
    assert first.accepted_per_position == again.accepted_per_position
    assert first.prompt_tokens == again.prompt_tokens


def encoder():
    from tokenizers import Tokenizer

    from moesd_dist.models.sources import weights_location

    tokenizer = Tokenizer.from_file(f"{weights_location(TARGET)}/tokenizer.json")
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def test_an_engine_that_had_to_be_started_again_is_told_of_once(engine) -> None:
    """In a warm-up, as a rule: that is where the next visit to a setting begins."""
    wanted = of("ngram", 2)
    llm = engine.llm(wanted)
    llm.dead = True
    llm.close()
    engine.warm_up(wanted)
    assert [engine.measure(wanted, repeat).engine_starts for repeat in (0, 1)] == [1, 0]
