"""Our decode step beside transformers' own, on the widened embedded target, in one run.

    python -m benchmarks.engine_step [--batch-sizes 1 2 4 ...] [--repeats 15]

Both decode the same tokens at the same context with the same weights: ours with the experts path and
the ragged cache, theirs with sdpa attention, DynamicCache and the faster of `eager` and `grouped_mm`
experts (never `batched_mm`, which copies the weights per token). Steps are interleaved; medians and
quartiles are printed, with the bytes of weights that a step must read, over its time, beside the rate
of a plain read of as many bytes. A second table tells what counting the routing costs.
"""

from __future__ import annotations

import argparse
import copy
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median, quantiles
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from rich.console import Console
from rich.table import Table
from transformers import DynamicCache

from moesd_dist.engines.neighbours import ForeignLoad
from moesd_dist.engines.transformers import experts_path, host
from moesd_dist.engines.transformers.forward import RaggedModel
from moesd_dist.engines.transformers.load import load_model, load_tokenizer, num_experts_of
from moesd_dist.engines.transformers.prefill import PrefilledPrompts
from moesd_dist.engines.transformers.routing import RoutingRecorder
from moesd_dist.models.shape import shape_of
from moesd_dist.models.sources import resolve_config
from moesd_dist.records import ModelSource, ModelSpec, WorkloadSpec
from moesd_dist.workloads.prompts import draw_prompts

TARGET = ModelSpec(
    name="embedded", source=ModelSource.embedded, location="target",
    widen_hidden=8, widen_expert=16, widen_heads=4,
)  # fmt: skip
CPU = torch.device("cpu")
WORKLOAD = WorkloadSpec(
    name="stdlib_code", prompt_tokens_min=48, prompt_tokens_max=48, output_tokens=1
)
Step = Callable[[], float]  # seconds of one step, preparations left out


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Bench:
    """The same weights twice: transformers' layout for theirs, the blocked one for ours."""

    def __init__(self) -> None:
        self.theirs = load_model(TARGET, CPU)
        ours = copy.deepcopy(self.theirs)
        self.theirs.config._attn_implementation = "sdpa"
        layers = len(experts_path.experts_modules(ours))
        self.recorder = RoutingRecorder(layers, num_experts_of(ours), CPU)
        experts_path.install(ours, implementation="auto", recorder=self.recorder)
        self.ours = RaggedModel(ours)
        tokenizer = load_tokenizer(TARGET)
        self.encode = lambda text: tokenizer.encode(text, add_special_tokens=False)

    def prompts(self, batch_size: int) -> list[list[int]]:
        vocabulary = self.ours.vocab_size
        return draw_prompts(
            WORKLOAD, count=batch_size, repeat=0, encode=self.encode, vocab_size=vocabulary
        )

    def our_step(self, prompts: list[list[int]], *, counting: bool) -> Step:
        pool = PrefilledPrompts(prompts, [self.ours])
        capacity = len(prompts[0]) + 4
        cache = self.ours.new_cache(rows=len(prompts), capacity=capacity)
        for row in range(len(prompts)):
            pool.place(row, row, [cache])
        tokens = torch.tensor([[prompt[-1]] for prompt in prompts])
        starts = torch.full((len(prompts),), len(prompts[0]) - 1)

        def step() -> float:
            self.recorder.recording = counting
            return seconds(
                lambda: self.ours.forward(cache, tokens, starts, longest=len(prompts[0]) - 1)
            )

        return step

    def their_step(self, prompts: list[list[int]], implementation: str) -> Step:
        ids = torch.tensor(prompts)
        cache = DynamicCache()
        with torch.inference_mode(), experts(self.theirs, "grouped_mm"):
            self.theirs(input_ids=ids[:, :-1], past_key_values=cache, logits_to_keep=1)

        def step() -> float:
            with torch.inference_mode(), experts(self.theirs, implementation):
                spent = seconds(lambda: self.theirs(input_ids=ids[:, -1:], past_key_values=cache))
            cache.crop(-1)  # the step may be repeated
            return spent

        return step


@contextmanager
def experts(model: Any, implementation: str) -> Iterator[None]:
    for module in (model, *experts_path.experts_modules(model)):
        module.config._experts_implementation = implementation
    yield


def bytes_read(activated: float) -> float:
    config = resolve_config(TARGET)
    assert config is not None
    shape = shape_of(config)
    routed = activated * shape.num_moe_layers * shape.expert_bytes(2)
    return routed + shape.streamed_non_expert_params * 2


def plain_read(count: float) -> Step:
    memory = torch.ones(int(count) // 4, dtype=torch.float32)
    return lambda: seconds(memory.sum)


def interleave(steps: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """Every step in turn, `repeats` times, after two untimed rounds.

    The order is drawn anew each time: a step leaves the next one some of its weights in the cache.
    """
    found: dict[str, list[float]] = {name: [] for name in steps}
    order, rng = list(steps), random.Random(0)
    for repeat in range(repeats + 2):
        rng.shuffle(order)
        for name in order:
            spent = steps[name]()
            if repeat >= 2:
                found[name].append(spent)
    return found


def spread(values: list[float]) -> str:
    low, middle, high = quantiles(values, n=4)
    return f"{middle * 1e3:.1f} [{low * 1e3:.1f}, {high * 1e3:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    host.set_threads(1)
    load = ForeignLoad()
    bench = Bench()
    table = Table("B", "experts", "ours ms [quartiles]", "grouped_mm ms", "eager ms", "best theirs / ours", "GB/s ours", "GB/s plain read", "counting costs", title="one decode step, bf16, one thread")  # fmt: skip
    ratios = []
    for batch_size in options.batch_sizes:
        prompts = bench.prompts(batch_size)
        counted = bench.our_step(prompts, counting=True)
        bench.recorder.take()
        counted()
        _, seen, forwards = bench.recorder.take()
        count = bytes_read(sum(seen) / forwards)
        steps = {
            "ours": counted,
            "uncounted": bench.our_step(prompts, counting=False),
            "grouped_mm": bench.their_step(prompts, "grouped_mm"),
            "eager": bench.their_step(prompts, "eager"),
            "read": plain_read(count),
        }
        found = interleave(steps, options.repeats)
        middle = {name: median(values) for name, values in found.items()}
        ratios.append(min(middle["grouped_mm"], middle["eager"]) / middle["ours"])
        table.add_row(
            str(batch_size), f"{sum(seen) / forwards:.1f}", spread(found["ours"]),
            spread(found["grouped_mm"]), spread(found["eager"]), f"{ratios[-1]:.2f}x",
            f"{count / middle['ours'] / 1e9:.1f}", f"{count / middle['read'] / 1e9:.1f}",
            f"{(middle['ours'] / middle['uncounted'] - 1) * 100:+.1f} %",
        )  # fmt: skip
    console = Console(width=170)
    console.print(table)
    console.print(
        f"median {median(ratios):.2f}x, least {min(ratios):.2f}x; others kept {load.cores():.2f} cores busy",
        highlight=False,
    )


if __name__ == "__main__":
    main()
