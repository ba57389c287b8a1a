"""How experts are computed: prepacked weights on a CPU, one grouped matrix product elsewhere.

Both go through transformers' experts interface, so every Hugging Face MoE gets them, and both count
the routing they compute. `batched_mm` copies an expert's weights for every token: never used here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, grouped_mm_experts_forward

from moesd_dist.engines.transformers.expert_exchange import ExpertExchange, local_of
from moesd_dist.engines.transformers.routing import RoutingRecorder
from moesd_dist.engines.transformers.traces import TraceRecorder

EXPERTS = "moesd"
BATCH_HINT = 32  # rows the blocked layout is chosen for; tried at 1..256, the choice hardly matters


class PackedExperts:
    """One layer's experts in oneDNN's blocked layout, made once instead of at every call.

    The operators are private to torch: `can_pack` tries them, and grouped_mm remains without them.
    """

    def __init__(self, module: Any) -> None:
        pack = torch.ops.mkldnn._reorder_linear_weight
        self.gate_up = [pack(w.detach().contiguous(), BATCH_HINT) for w in module.gate_up_proj]
        self.down = [pack(w.detach().contiguous(), BATCH_HINT) for w in module.down_proj]
        self.apply_gate: Callable[[Tensor], Tensor] = module._apply_gate

    def forward(self, hidden: Tensor, chosen: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
        """[tokens, width] from router choices and weights [tokens, top_k]; one call per active expert."""
        top_k = chosen.shape[1]
        owner = torch.arange(len(chosen), device=chosen.device).repeat_interleave(top_k)
        found = self.pairs(hidden, owner, chosen.reshape(-1), weights.reshape(-1), counts)
        return found.view(*chosen.shape, -1).sum(1).to(hidden.dtype)

    def pairs(
        self, hidden: Tensor, owner: Tensor, expert: Tensor, weights: Tensor, counts: Tensor
    ) -> Tensor:
        """Weighted [pairs, width], a pair being a token, int64 `owner`, and an expert it chose."""
        linear = torch.ops.mkldnn._linear_pointwise
        order = expert.argsort(stable=True)
        tokens = hidden[owner[order]]
        active = [(place, rows) for place, rows in enumerate(counts.tolist()) if rows]
        outputs = []
        for (place, _), rows in zip(active, tokens.split([n for _, n in active]), strict=True):
            inner = self.apply_gate(linear(rows, self.gate_up[place], None, "none", [], ""))
            outputs.append(linear(inner, self.down[place], None, "none", [], ""))
        weighted = torch.cat(outputs) * weights[order].unsqueeze(-1)
        unsorted = torch.empty_like(weighted)
        unsorted[order] = weighted
        return unsorted


class ExpertsPath:
    """What one experts module needs at run time; `exchange` where other ranks have some experts."""

    def __init__(self, layer: int, recorder: RoutingRecorder, packed: PackedExperts | None) -> None:
        self.layer, self.recorder, self.packed = layer, recorder, packed
        self.exchange: ExpertExchange | None = None
        self.traces: TraceRecorder | None = None  # of a rank that is alone


def experts_forward(module: Any, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """transformers' experts interface: hidden [tokens, width], choices and weights [tokens, top_k]."""
    path: ExpertsPath = module.moesd_path
    recorder, packed = path.recorder, path.packed
    if not recorder.recording and packed is None and path.exchange is None:
        return grouped(module, hidden, chosen, weights)
    counts = recorder.count(chosen)
    if recorder.recording:
        recorder.add(path.layer, counts, chosen.shape[-1])
    if path.exchange is not None:
        local = local_of(module, packed, grouped)
        return path.exchange.forward(path.layer, local, hidden, chosen, weights)
    alone = path.traces if recorder.recording else None
    laps = alone.begin(path.layer, counts) if alone else None
    if packed is None:
        found = grouped(module, hidden, chosen, weights)
    else:
        found = packed.forward(hidden, chosen, weights, counts)
    if alone and laps:
        alone.end(laps)
    return found


def grouped(module: Any, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """transformers' own grouped matrix product."""
    return cast(Tensor, grouped_mm_experts_forward(module, hidden, chosen, weights))


def experts_modules(model: nn.Module) -> list[Any]:
    """The modules that hold routed experts, in layer order."""
    return [m for m in model.modules() if hasattr(m, "_is_expert_parallel")]


def install(model: Any, *, implementation: str, recorder: RoutingRecorder) -> str:
    """Routes every experts module through here; returns `packed` or `grouped_mm`, whichever is used."""
    modules = experts_modules(model)
    use_packed = implementation == "packed" or (
        implementation == "auto" and bool(modules) and all(can_pack(m) for m in modules)
    )
    for layer, module in enumerate(modules):
        packed = PackedExperts(module) if use_packed else None
        if packed is not None:  # the blocked copy replaces the plain weights: half the memory
            module.gate_up_proj = module.down_proj = None
        module.moesd_path = ExpertsPath(layer, recorder, packed)
        module.config._experts_implementation = EXPERTS
    return "packed" if use_packed else "grouped_mm"


def can_pack(module: Any) -> bool:
    """Gated experts in bf16 on a CPU whose torch has the operators."""
    if module.has_bias or module.is_transposed or not module.has_gate:
        return False
    weight = module.gate_up_proj
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16:
        return False
    if getattr(module, "has_post_expert_norm", False):
        return False
    try:
        tiny = torch.zeros(16, 16, dtype=torch.bfloat16)
        blocked = torch.ops.mkldnn._reorder_linear_weight(tiny, BATCH_HINT)
        torch.ops.mkldnn._linear_pointwise(tiny, blocked, None, "none", [], "")
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        return False
    return True


def register() -> None:
    ALL_EXPERTS_FUNCTIONS.register(EXPERTS, experts_forward)
