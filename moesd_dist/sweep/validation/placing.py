"""Where a layout puts the experts of a model."""

from __future__ import annotations

from moesd_dist.models.expert_loads import read_loads
from moesd_dist.records import LayoutSpec
from moesd_dist.theory.expert_parallel import placement as placements
from moesd_dist.theory.expert_parallel.balanced import balanced
from moesd_dist.theory.expert_parallel.placement import Placement


def placement_of(layout: LayoutSpec, shape: tuple[int, ...]) -> Placement:
    """`shape` is (MoE layers, experts); ValueError for a placement that is not foretold."""
    layers, num_experts = shape
    match layout.expert_placement:
        case "" | "linear":
            return placements.linear(num_experts, ranks=layout.ep_size, layers=layers)
        case "round_robin":
            return placements.round_robin(num_experts, ranks=layout.ep_size, layers=layers)
        case "balanced":
            loads = read_loads(layout.loads_path)
            return balanced(loads, ranks=layout.ep_size, redundant=layout.redundant_experts)
        case other:
            raise ValueError(
                f"a forecast knows expert_placement linear, round_robin and balanced; got {other!r}"
            )
