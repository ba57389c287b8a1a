"""Expert parallelism on a CPU: correct, never fast.

Symptom: a segmentation fault with `enable_expert_parallel`. Cause: the CPU experts ignore the map
from global to local experts and index past the weights they hold. Upstream: expert parallelism on
CPUs is a feature request, https://github.com/vllm-project/vllm/issues/57837, open.

Choices of other ranks' experts are computed by local expert 0 and weighted with zero: every rank
does the work of all, so times of an expert-parallel engine on a CPU mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def local_choices(weights: Tensor, chosen: Tensor, expert_map: Tensor) -> tuple[Tensor, Tensor]:
    """Router weights and choices [tokens, top_k] on this rank: `expert_map` is -1 for others' experts."""
    local = expert_map[chosen.long()]
    elsewhere = local < 0
    return weights.masked_fill(elsewhere, 0), local.masked_fill(elsewhere, 0).to(chosen.dtype)


def apply() -> None:
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts

    CPUUnquantizedExperts.apply = _mapped(CPUUnquantizedExperts.apply)


def _mapped(original: Callable[..., None]) -> Callable[..., None]:
    def apply(
        self: Any,
        *,
        topk_weights: Tensor,
        topk_ids: Tensor,
        expert_map: Tensor | None,
        apply_router_weight_on_input: bool,
        **rest: Any,
    ) -> None:
        if expert_map is not None:
            # The kernel would skip the weights, and with them the zeros.
            if apply_router_weight_on_input:
                raise NotImplementedError(
                    "expert parallelism on a CPU needs router weights applied to the experts' output, "
                    "this model applies them to the input; take another model or no expert parallelism"
                )
            topk_weights, topk_ids = local_choices(topk_weights, topk_ids, expert_map)
        original(
            self,
            topk_weights=topk_weights,
            # The kernel takes int32; VLLM_MOE_ROUTING_SIMULATION_STRATEGY yields int64.
            topk_ids=topk_ids.to(torch.int32),
            expert_map=expert_map,
            apply_router_weight_on_input=apply_router_weight_on_input,
            **rest,
        )

    return apply
