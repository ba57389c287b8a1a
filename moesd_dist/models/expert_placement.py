"""Where a layout puts the experts of a model: the rule that it names, or measured loads."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from moesd_dist.models.expert_loads import read_loads
from moesd_dist.records import LayoutSpec
from moesd_dist.theory.expert_parallel import placement as placements
from moesd_dist.theory.expert_parallel.balanced import balanced
from moesd_dist.theory.expert_parallel.placement import Placement


def placement_of(layout: LayoutSpec, *, layers: int, num_experts: int) -> Placement:
    """Of a model with that many MoE layers; ValueError for an unknown rule or another model's loads."""
    ranks = layout.ep_size
    match layout.expert_placement:
        case "" | "linear":
            return placements.linear(num_experts, ranks=ranks, layers=layers)
        case "round_robin":
            return placements.round_robin(num_experts, ranks=ranks, layers=layers)
        case "balanced":
            loads = _own_loads(layout)
            if loads.shape != (layers, num_experts):
                raise ValueError(
                    f"layout.expert_loads are of {loads.shape[0]} layers with {loads.shape[1]} "
                    f"experts, the model has {layers} with {num_experts}; measure them on this model"
                )
            return balanced(loads, ranks=ranks, redundant=layout.redundant_experts)
        case other:
            raise ValueError(f"no expert placement {other!r}; use linear, round_robin or balanced")


def _own_loads(layout: LayoutSpec) -> npt.NDArray[np.float64]:
    """Of the content that the sweep was configured with: every node reads a copy of its own."""
    path = Path(layout.loads_path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else "no file"
    if found != layout.loads_digest:
        raise ValueError(
            f"layout.expert_loads {path} is {found} here, the sweep was given {layout.loads_digest}; "
            "put the same file at the same place on every node"
        )
    return read_loads(layout.loads_path)
