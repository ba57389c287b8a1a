"""Our side: the windows and end-to-end runs of a point, and the same prompts once more, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from benchmarks.vs_serve.counts import Counts, of_counters, of_steps
from moesd_dist.engines.vllm.engine import VllmEngine
from moesd_dist.engines.vllm.host import LoadedLLM, Timeouts
from moesd_dist.engines.vllm.memory import device_memory
from moesd_dist.engines.vllm.settings import SEQUENCES
from moesd_dist.records import Measurement, RankPlace, SweepPoint

TIMEOUTS = Timeouts(start_s=240.0, answer_s=120.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToTheEnd:
    """All prompts to their full length, in batches that start together."""

    traced: Counts  # by our probe
    counted: Counts  # by vLLM, of a second run of the same
    outputs: tuple[tuple[int, ...], ...]


def measure(point: SweepPoint) -> Measurement:
    """Point and baseline by turns, as a sweep measures them."""
    engine = VllmEngine(device=point.device, place=RankPlace(), timeouts=TIMEOUTS)
    points = (point.baseline, point)
    with closing(engine):
        for one in points:
            engine.warm_up(one)
        turns = range(point.protocol.repeats)
        baseline, repeats = zip(
            *([engine.measure(one, repeat) for one in points] for repeat in turns), strict=True
        )
        found = Measurement(point=point, repeats=repeats, baseline=baseline)
        num_experts, top_k = engine.routing(point)
        return replace(found, num_experts=num_experts, top_k=top_k)


def to_the_end(point: SweepPoint, batches: Sequence[list[list[int]]]) -> ToTheEnd:
    tokens, memory = point.workload.output_tokens, device_memory(point.device)
    llm = LoadedLLM(point, RankPlace(), sequences=SEQUENCES, memory=memory, timeouts=TIMEOUTS)
    with closing(llm):
        steps = [llm.call("steps", prompts=batch, tokens=tokens) for batch in batches]
        before = llm.call("counters")
        outputs = [
            llm.call("generate", prompts=batch, tokens=tokens, temperature=0.0) for batch in batches
        ]
        after = llm.call("counters")
    return ToTheEnd(
        traced=of_steps([step for run in steps for step in run], point.gamma),
        counted=of_counters(before, after),
        outputs=tuple(tuple(output) for batch in outputs for output in batch),
    )
