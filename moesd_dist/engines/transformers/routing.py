"""Which experts each forward activates, counted on the path that is measured."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RoutingRecorder:
    """Adds up tokens per expert and distinct experts per layer while `recording` is on.

    All tensors stay on the device and nothing is read back before `take`, so that counting costs a
    few small kernels a layer and never a wait.
    """

    def __init__(self, num_layers: int, num_experts: int, device: torch.device) -> None:
        self.enabled = True  # off: only to measure what counting costs
        self.recording = False
        self.top_k = 0
        self.num_experts = num_experts
        self._forwards = torch.zeros(num_layers, dtype=torch.int64)
        self._load = torch.zeros(num_layers, num_experts, dtype=torch.int64, device=device)
        self._seen = torch.zeros(num_layers, dtype=torch.int64, device=device)

    def count(self, chosen: Tensor) -> Tensor:
        """Tokens per expert, int64 [experts], of router choices int64 [tokens, top_k]."""
        if chosen.device.type == "cpu":
            return torch.bincount(chosen.reshape(-1), minlength=self.num_experts)
        flat = chosen.reshape(-1).long()  # bincount would wait for the device
        ones = torch.ones_like(flat)
        return flat.new_zeros(self.num_experts).scatter_add_(0, flat, ones)

    def add(self, layer: int, counts: Tensor, top_k: int) -> None:
        self.top_k = top_k
        self._load[layer] += counts
        self._seen[layer] += (counts > 0).sum()
        self._forwards[layer] += 1

    def take(self) -> tuple[Tensor, tuple[int, ...], int]:
        """Load int64 [layers, experts], distinct experts per layer, layer forwards; starts anew."""
        load, seen = self._load.cpu().clone(), tuple(self._seen.tolist())
        forwards = int(self._forwards.sum())
        for tensor in (self._load, self._seen, self._forwards):
            tensor.zero_()
        return load, seen, forwards


def set_top_k(model: nn.Module, top_k: int) -> None:
    """Lets every router choose `top_k` experts per token, without retraining (MoESD's sweep of K)."""
    routers = [m for m in model.modules() if isinstance(getattr(m, "top_k", None), int)]
    if not routers:
        raise ValueError(f"top_k {top_k} was asked of a model without routers; leave top_k unset")
    for router in routers:
        router.top_k = top_k  # type: ignore[assignment]


def own_top_k(model: nn.Module) -> int:
    """The model's own experts per token; 0 for a dense model."""
    found = (getattr(m, "top_k", None) for m in model.modules())
    return next((k for k in found if isinstance(k, int)), 0)
