"""What the tests of expert parallelism run on every rank: decoding, with experts shared out or not."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from moesd_dist.engines.transformers import experts_path
from moesd_dist.engines.transformers.acceptance import greedy
from moesd_dist.engines.transformers.clocks import CpuClock
from moesd_dist.engines.transformers.drafts import ModelDrafter, NoDrafter
from moesd_dist.engines.transformers.forward import RaggedModel
from moesd_dist.engines.transformers.group import RankGroup, join
from moesd_dist.engines.transformers.load import load_model, num_experts_of
from moesd_dist.engines.transformers.pair import Pair, Ranks
from moesd_dist.engines.transformers.prefill import PrefilledPrompts
from moesd_dist.engines.transformers.rounds import RoundRunner
from moesd_dist.engines.transformers.routing import RoutingRecorder
from moesd_dist.engines.transformers.traces import Step
from moesd_dist.engines.transformers.window import Batch
from moesd_dist.records import LayoutSpec, ModelSpec, RankPlace

CPU = torch.device("cpu")
OUTPUT = 16
GAMMA = 3
VOCABULARY = 128


def prompts_of(count: int) -> list[list[int]]:
    rng = random.Random(count)
    return [[rng.randrange(3, VOCABULARY) for _ in range(rng.randint(2, 20))] for _ in range(count)]


def decode_all(place: RankPlace, cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One case after the other: processes take longer to start than to decode."""
    torch.set_num_threads(1)
    group = join(place, CPU, meet_s=60.0, timeout_s=30.0)
    return {name: decode(group, place, **case) for name, case in cases.items()}


class Joined(Ranks):
    """Models that are loaded one after the other, for one group."""

    def __init__(self, layout: LayoutSpec, place: RankPlace, group: RankGroup) -> None:
        super().__init__(layout, place, (60.0, 30.0))
        object.__setattr__(self, "group", group)

    def join(self, device: torch.device) -> RankGroup:
        return self.group


def balanced_by(load: torch.Tensor, layout: LayoutSpec, path: Path) -> LayoutSpec:
    """The layout with a file of what each expert was given, [layer, expert]."""
    path.write_text(json.dumps({"loads": load.tolist()}))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return replace(layout, loads_path=str(path), loads_digest=digest)


def decode(
    group: RankGroup,
    place: RankPlace,
    models: list[tuple[ModelSpec, LayoutSpec]],
    rows: list[int],
) -> dict[str, Any]:
    """First logits and greedy tokens of this rank's rows, `rows` being how many each rank has."""
    found = {}
    for spec, layout in models:
        pair = Pair(spec, None, CPU, "auto", ranks=Joined(layout, place, group))
        first = sum(rows[: place.rank])
        own = prompts_of(sum(rows))[first : first + rows[place.rank]]
        draft = _draft(spec)
        found[spec.name] = {
            "logits": _first_logits(pair, own),
            "plain": _written(pair, draft, own, gamma=0),
            "speculated": _written(pair, draft, own, gamma=GAMMA),
            "slots": _by_slot(pair.sharing.traces.steps),
            "window": pair.sharing.window(target_s=1.0),
            "load": pair.recorder.take()[0],
        }
    return found


def _by_slot(steps: Sequence[Step]) -> torch.Tensor:
    """Tokens of each physical expert of this rank, [layer, slot]."""
    layers = 1 + max(step.layer for step in steps)
    return torch.stack([sum(s.load for s in steps if s.layer == layer) for layer in range(layers)])


def _draft(spec: ModelSpec) -> RaggedModel:
    """Agrees with its target often, not always; whole on every rank, and the same."""
    twin = copy.deepcopy(load_model(spec, CPU))
    generator = torch.Generator().manual_seed(7)
    for parameter in twin.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += 0.1 * parameter.data.std().nan_to_num() * noise
    recorder = RoutingRecorder(len(experts_path.experts_modules(twin)), num_experts_of(twin), CPU)
    experts_path.install(twin, implementation="auto", recorder=recorder)
    return RaggedModel(twin)


def _first_logits(pair: Pair, prompts: list[list[int]]) -> torch.Tensor:
    """Of the token after each prompt, [rows, vocabulary]; all ranks have to call."""
    target = pair.models[0]
    pool = PrefilledPrompts(prompts, [target], pair.sharing)
    cache = target.new_cache(rows=len(prompts), capacity=32)
    batch = Batch(pool, [cache], CPU)
    if not prompts:
        pair.sharing.idle()
        return torch.zeros(0, VOCABULARY)
    sequences = batch.sequences
    starts = sequences.lengths - 1
    return target.forward(cache, sequences.last(1), starts, longest=sequences.longest - 1)[:, 0]


def _written(
    pair: Pair, draft: RaggedModel, prompts: list[list[int]], *, gamma: int
) -> list[list[int]]:
    models = [pair.models[0], draft]
    pool = PrefilledPrompts(prompts, models, pair.sharing)
    capacity = 24 + (OUTPUT + 1) * (gamma + 1)
    caches = [model.new_cache(rows=len(prompts), capacity=capacity) for model in models]
    batch = Batch(pool, caches, CPU)
    drafter = ModelDrafter(draft, caches[1], 0.0, torch.Generator()) if gamma else NoDrafter()
    runner = RoundRunner(
        models[0], caches[0], drafter, greedy, CpuClock(), pair.recorder, pair.sharing
    )
    left = 1
    while left:
        runner.run(batch.sequences, gamma)
        written = batch.sequences.written()
        left = pair.sharing.total([int((written < OUTPUT).sum())])[0]
    starts = batch.sequences.prompt_lengths.tolist()
    rows = batch.sequences.tokens.tolist()
    return [row[a : a + OUTPUT] for row, a in zip(rows, starts, strict=True)]


SINGLE = LayoutSpec()
