"""Tiny random models of every family, and a loop that decodes with them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from moesd_dist.engines.transformers import experts_path
from moesd_dist.engines.transformers.acceptance import Rule, greedy
from moesd_dist.engines.transformers.clocks import CpuClock
from moesd_dist.engines.transformers.drafts import Drafter, ModelDrafter, NgramDrafter, NoDrafter
from moesd_dist.engines.transformers.forward import RaggedModel
from moesd_dist.engines.transformers.load import load_model, num_experts_of
from moesd_dist.engines.transformers.prefill import PrefilledPrompts
from moesd_dist.engines.transformers.rounds import RoundRunner
from moesd_dist.engines.transformers.routing import RoutingRecorder
from moesd_dist.engines.transformers.window import Batch
from moesd_dist.records import ModelSource, ModelSpec

CONF = Path(__file__).parents[2] / "conf" / "model"
CPU = torch.device("cpu")


def spec_of(name: str, **changes: Any) -> ModelSpec:
    """The ModelSpec of a `shape` file in conf/model."""
    plain = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    config = plain["config"] | changes
    items = tuple((key, json.dumps(config[key], sort_keys=True)) for key in sorted(config))
    return ModelSpec(
        name=name, source=ModelSource.shape, config=items, dtype=plain.get("dtype", "bfloat16")
    )


def installed(model: Any) -> RaggedModel:
    """The model with our experts path, ready for ragged rows."""
    layers = len(experts_path.experts_modules(model))
    recorder = RoutingRecorder(layers, num_experts_of(model), CPU)
    experts_path.install(model, implementation="auto", recorder=recorder)
    ready = RaggedModel(model)
    ready.recorder = recorder  # type: ignore[attr-defined]
    return ready


def noisy_copy(model: Any, scale: float) -> Any:
    """A draft that agrees with its target often, not always."""
    twin = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(7)
    for parameter in twin.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += scale * parameter.data.std().nan_to_num() * noise
    return twin


class Decoding:
    """One target with an optional draft; decodes prompts to `output` tokens each."""

    def __init__(self, target: RaggedModel, draft: RaggedModel | None = None) -> None:
        self.target, self.draft = target, draft
        self.accepted = self.rounds = 0

    def run(
        self,
        prompts: list[list[int]],
        *,
        gamma: int,
        output: int,
        rule: Rule = greedy,
        temperature: float = 0.0,
        ngram: bool = False,
        seed: int = 0,
    ) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        models = [self.target] + ([self.draft] if self.draft else [])
        capacity = max(map(len, prompts)) + (output + 1) * (gamma + 1)
        pool = PrefilledPrompts(prompts, models)
        caches = [m.new_cache(rows=len(prompts), capacity=capacity) for m in models]
        batch = Batch(pool, caches, CPU)
        drafter: Drafter = NoDrafter()
        if gamma and ngram:
            drafter = NgramDrafter(1, 3)
        elif gamma:
            assert self.draft is not None
            drafter = ModelDrafter(self.draft, caches[1], temperature, generator)
        recorder = self.target.recorder  # type: ignore[attr-defined]
        runner = RoundRunner(self.target, caches[0], drafter, rule, CpuClock(), recorder)
        while int(batch.sequences.written().min()) < output:
            done = runner.run(batch.sequences, gamma)
            self.accepted += sum(done.accepted)
            self.rounds += len(done.accepted)
        starts = batch.sequences.prompt_lengths.tolist()
        rows = batch.sequences.tokens.tolist()
        return [row[a : a + output] for row, a in zip(rows, starts, strict=True)]


def generate(model: Any, prompts: list[list[int]], output: int) -> list[list[int]]:
    """transformers' own greedy continuation, one prompt at a time."""
    found = []
    for prompt in prompts:
        ids = model.generate(
            torch.tensor([prompt]), max_new_tokens=output, do_sample=False, eos_token_id=None
        )
        found.append(ids[0, len(prompt) :].tolist())
    return found


@pytest.fixture(scope="session")
def tiny() -> Callable[[str], Any]:
    """Loads a tiny model by the name of its file, once a session."""
    cache: dict[str, Any] = {}

    def load(name: str) -> Any:
        if name not in cache:
            cache[name] = load_model(spec_of(name), CPU)
        return cache[name]

    return load


@pytest.fixture(scope="session")
def kit() -> Any:
    """The helpers above, for test files that cannot import a conftest."""

    class Kit:
        decoding = Decoding
        installed = staticmethod(installed)
        noisy_copy = staticmethod(noisy_copy)
        generate = staticmethod(generate)
        spec_of = staticmethod(spec_of)

    return Kit
