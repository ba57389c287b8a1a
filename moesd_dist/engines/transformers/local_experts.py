"""The experts that one rank holds, and models built with room for these only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from moesd_dist.engines.transformers import experts_path
from moesd_dist.engines.transformers.model_config import load_config, skeleton
from moesd_dist.records import ModelSpec
from moesd_dist.theory.expert_parallel.placement import EMPTY


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LocalExperts:
    """`logical` is int64 [MoE layer, slot]: the expert in each slot of one rank, EMPTY for padding.

    `num_experts` are those of a layer on all ranks together. Raises ValueError unless every layer
    has slots, and none an expert twice or one that does not exist.
    """

    logical: npt.NDArray[np.int64]
    num_experts: int

    def __post_init__(self) -> None:
        if self.logical.ndim != 2 or not self.logical.size:
            raise ValueError(
                f"local experts are an array [layer, slot]; got shape {self.logical.shape}; "
                "use Placement.of_rank"
            )
        for layer, row in enumerate(self.logical):
            experts, copies = np.unique(row[row != EMPTY], return_counts=True)
            if copies.max(initial=1) > 1:
                raise ValueError(
                    f"a rank holds an expert once; layer {layer} has expert "
                    f"{experts[copies.argmax()]} twice; put replicas on different ranks"
                )

        least, most = self.logical.min(), self.logical.max()
        if least < EMPTY or most >= self.num_experts:
            raise ValueError(
                f"local experts are 0..{self.num_experts - 1}, or {EMPTY} for padding; got "
                f"{least}..{most}; use Placement.of_rank"
            )

    @property
    def slots(self) -> int:
        return int(self.logical.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertShare:
    """What LocalExperts mean for one model: its experts modules by name, in layer order."""

    model_class: Any
    modules: tuple[str, ...]
    module_classes: tuple[type, ...]
    local: LocalExperts

    def experts_of(self, module_name: str) -> list[int]:
        """The logical expert of each slot, EMPTY for padding."""
        row: list[int] = self.local.logical[self.modules.index(module_name)].tolist()
        return row

    def number_slots(self, model: Any) -> None:
        """`num_experts` of the experts modules becomes their slots; the router's stays."""
        for module in experts_path.experts_modules(model):
            module.moesd_logical_experts = self.local.num_experts
            module.num_experts = self.local.slots


def share_of(config: Any, local: LocalExperts | None) -> ExpertShare | None:
    """None for a whole model and for one without MoE layers; ValueError if the placement misfits."""
    if local is None:
        return None
    empty = skeleton(config)
    modules = experts_path.experts_modules(empty)
    if not modules:
        return None
    have, need = (len(local.logical), local.num_experts), _layers_and_experts(modules)
    if have != need:
        raise ValueError(
            f"a placement is made for one model; it has {have[0]} layers of {have[1]} experts, "
            f"the model {need[0]} of {need[1]}; make it for this model"
        )
    return ExpertShare(
        model_class=type(empty),
        modules=tuple(name for name, m in empty.named_modules() if m in modules),
        module_classes=tuple({type(m) for m in modules}),
        local=local,
    )


def expert_layers(spec: ModelSpec) -> tuple[int, int]:
    """MoE layers of a model, and routed experts of each; zeros if dense. Loads no weights."""
    return _layers_and_experts(experts_path.experts_modules(skeleton(load_config(spec))))


def _layers_and_experts(modules: list[Any]) -> tuple[int, int]:
    return len(modules), int(modules[0].num_experts) if modules else 0


def weight_bytes_of(model: nn.Module) -> tuple[int, int]:
    """Bytes of all parameters, tied ones once, and those of routed experts, padding included.

    ValueError once the experts are packed, which takes their parameters away.
    """
    modules = experts_path.experts_modules(model)
    if any(not list(module.parameters(recurse=False)) for module in modules):
        raise ValueError("weights are counted before experts are packed; these are; load them anew")
    routed = sum(p.nbytes for m in modules for p in m.parameters(recurse=False))
    return sum(p.nbytes for p in model.parameters()), routed


@contextmanager
def room_for(share: ExpertShare | None) -> Iterator[None]:
    """Experts modules that are built on meta in here get one row for each slot, not for each expert."""
    if share is None:
        yield
        return

    def shrink(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        # Loaded weights are registered as well: they have their rows already, and are not on meta.
        if (
            parameter is None
            or not parameter.is_meta
            or not isinstance(module, share.module_classes)
        ):
            return None
        if parameter.shape[0] != share.local.num_experts:
            raise ValueError(
                f"parameters of experts must start with {share.local.num_experts} experts; {name} of "
                f"{type(module).__name__} has shape {list(parameter.shape)}; use ep_size 1"
            )
        return nn.Parameter(parameter.new_empty((share.local.slots, *parameter.shape[1:])))

    register: Any = register_module_parameter_registration_hook  # typed as if it returned nothing
    handle = register(shrink)
    try:
        yield
    finally:
        handle.remove()
