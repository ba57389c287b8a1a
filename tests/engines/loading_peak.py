"""Loads one rank's share after the other and prints how much memory each took at most."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from moesd_dist.engines.transformers.load import load_model
from moesd_dist.engines.transformers.local_experts import (
    LocalExperts,
    expert_layers,
    weight_bytes_of,
)
from moesd_dist.records import ModelSource, ModelSpec
from moesd_dist.theory.expert_parallel.placement import round_robin

CPU = torch.device("cpu")
EMBEDDED = ModelSpec(name="embedded", source=ModelSource.embedded, location="target")


def spec_of(where: str, dtype: str) -> ModelSpec:
    """`wide` is the embedded target widened, a .json file a shape, anything else a checkpoint."""
    if where == "wide":
        wide = {"widen_hidden": 2, "widen_expert": 8}
        return ModelSpec(name=where, source=ModelSource.embedded, location="target", **wide)
    if where.endswith(".json"):
        config = tuple(json.loads(Path(where).read_text()).items())
        return ModelSpec(name=where, source=ModelSource.shape, config=config, dtype=dtype)
    return ModelSpec(name=where, source=ModelSource.checkpoint, location=where, dtype=dtype)


def memory_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def main(where: str, dtype: str, ranks: int) -> None:
    spec = spec_of(where, dtype)
    layers, num_experts = expert_layers(spec)
    local = None
    if ranks > 1:
        logical = round_robin(num_experts, ranks=ranks, layers=layers).of_rank(ranks - 1)
        local = LocalExperts(logical=logical, num_experts=num_experts)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = memory_bytes("VmRSS")
    model = load_model(spec, CPU, local)
    for weight in model.parameters():
        weight.view(torch.uint8).max()  # mapped files take memory when they are read
    peak = memory_bytes("VmHWM") - before
    print(json.dumps({"peak_bytes": peak, "experts_bytes": weight_bytes_of(model)[1]}))


load_model(EMBEDDED, CPU)  # what loading imports is no weight
for job in json.loads(sys.argv[1]):
    main(*job)
