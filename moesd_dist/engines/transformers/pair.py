"""A loaded target with its draft, and what a point makes of them: its drafter and its rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from moesd_dist.engines.transformers import acceptance, experts_path
from moesd_dist.engines.transformers.drafts import (
    AlwaysDrafter,
    Drafter,
    ModelDrafter,
    NgramDrafter,
    NoDrafter,
)
from moesd_dist.engines.transformers.forward import RaggedModel
from moesd_dist.engines.transformers.group import RankGroup, join
from moesd_dist.engines.transformers.load import load_model, load_tokenizer, num_experts_of
from moesd_dist.engines.transformers.local_experts import (
    LocalExperts,
    expert_layers,
    weight_bytes_of,
)
from moesd_dist.engines.transformers.ragged_cache import RaggedCache
from moesd_dist.engines.transformers.routing import RoutingRecorder, own_top_k, set_top_k
from moesd_dist.engines.transformers.sharing import Sharing
from moesd_dist.models.expert_placement import placement_of
from moesd_dist.records import DraftMethod, LayoutSpec, ModelSpec, RankPlace, SweepPoint
from moesd_dist.theory.expert_parallel.placement import Placement, linear


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which part of the target is this process's, and how long it waits for the others."""

    layout: LayoutSpec
    place: RankPlace
    timeouts: tuple[float, float]  # to meet, and of a collective

    def experts(self, spec: ModelSpec) -> tuple[Placement, LocalExperts | None]:
        """Where the experts of a model are, and those that are loaded here; None is all of them."""
        layers, num_experts = expert_layers(spec)
        if self.place.size == 1:
            return linear(max(num_experts, 1), ranks=1, layers=layers), None
        if not layers:
            raise ValueError(f"{spec.name} is dense: it has no experts to share; use layout=single")
        placement = placement_of(self.layout, num_experts=num_experts, layers=layers)
        return placement, LocalExperts(
            logical=placement.of_rank(self.place.rank), num_experts=num_experts
        )

    def join(self, device: torch.device) -> RankGroup:
        meet_s, collective_s = self.timeouts
        return join(self.place, device, meet_s=meet_s, timeout_s=collective_s)


class Pair:
    """The loaded target and draft, with the routing recorder of the target."""

    def __init__(
        self,
        target: ModelSpec,
        draft: ModelSpec | None,
        device: torch.device,
        experts_implementation: str,
        ranks: Ranks,
    ) -> None:
        placement, local = ranks.experts(target)
        self._model: Any = load_model(target, device, local)
        self._own_top_k = own_top_k(self._model)
        layers = len(experts_path.experts_modules(self._model))
        num_experts = placement.num_experts if layers else 0
        self.recorder = RoutingRecorder(layers, num_experts, device)
        weight_bytes = weight_bytes_of(self._model)  # before experts are packed
        self.experts_path = experts_path.install(
            self._model, implementation=experts_implementation, recorder=self.recorder
        )
        self.models = [RaggedModel(self._model)]
        if draft is not None:
            model = load_model(draft, device)
            recorder = RoutingRecorder(
                len(experts_path.experts_modules(model)), num_experts_of(model), device
            )
            experts_path.install(model, implementation=experts_implementation, recorder=recorder)
            self.models.append(RaggedModel(model))
        self._tokenizer = load_tokenizer(target)
        self._check(target, draft)
        self.sharing = Sharing(  # last: the others wait for it
            ranks.join(device),
            self._model,
            placement,
            backend=ranks.layout.all2all_backend,
            weight_bytes=weight_bytes,
        )

    def _check(self, target: ModelSpec, draft: ModelSpec | None) -> None:
        """What hub names keep from being known earlier, and what a renamed attribute would hide."""
        if self._own_top_k and not self.recorder.num_experts:
            raise ValueError(
                f"model {target.name} has routers but no experts module of transformers' interface; "
                "this version of transformers is not supported"
            )
        sizes = [model.vocab_size for model in self.models]
        if draft is not None and sizes[0] != sizes[1]:
            raise ValueError(
                f"draft and target must share a vocabulary: {draft.name} has {sizes[1]} tokens, "
                f"{target.name} {sizes[0]}; choose a draft of the same family"
            )
        theirs = load_tokenizer(draft) if draft is not None else None
        if theirs and self._tokenizer and theirs.get_vocab() != self._tokenizer.get_vocab():
            raise ValueError(
                f"draft {draft and draft.name} and target {target.name} number their tokens differently; "
                "choose a draft of the same family"
            )

    @property
    def encode(self) -> Any:
        if self._tokenizer is None:
            return None
        return lambda text: self._tokenizer.encode(text, add_special_tokens=False)

    def use_top_k(self, top_k: int | None) -> None:
        wanted = self._own_top_k if top_k is None else top_k
        if wanted and wanted != own_top_k(self._model):
            set_top_k(self._model, wanted)


def make_drafter(
    point: SweepPoint, pair: Pair, caches: list[RaggedCache], generator: torch.Generator
) -> Drafter:
    if point.gamma == 0:
        return NoDrafter()
    drafter: Drafter
    if point.sd.method is DraftMethod.ngram:
        drafter = NgramDrafter(point.sd.ngram_min, point.sd.ngram_max)
    else:
        drafter = ModelDrafter(pair.models[1], caches[1], point.temperature, generator)
    if point.synthetic_acceptance:
        return AlwaysDrafter(drafter, pair.models[0].vocab_size, generator)
    return drafter


def make_rule(point: SweepPoint, generator: torch.Generator) -> acceptance.Rule:
    rule: acceptance.Rule = acceptance.greedy
    if point.temperature > 0:
        rule = acceptance.sampled(point.temperature, generator)
    if point.gamma and point.synthetic_acceptance:
        return acceptance.synthetic(point.sd.synthetic_acceptance, rule, generator)
    return rule
