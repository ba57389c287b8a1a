"""One rank's part in a model whose experts are shared out: its group, its experts, its traces."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from moesd_dist.engines.transformers.expert_exchange import ExpertExchange, local_of
from moesd_dist.engines.transformers.experts_path import experts_modules, grouped
from moesd_dist.engines.transformers.group import RankGroup
from moesd_dist.engines.transformers.traces import TraceRecorder, Whereabouts, Window, window_of
from moesd_dist.engines.transformers.wire import WireFormat
from moesd_dist.theory.expert_parallel.placement import Placement


class Sharing:
    """Joined to a loaded model; a rank alone keeps its traces here too, and exchanges nothing."""

    def __init__(
        self,
        group: RankGroup,
        model: Any,
        placement: Placement,
        *,
        backend: str,
        weight_bytes: tuple[int, int],
    ) -> None:
        self.group, self.traces = group, TraceRecorder()
        self._about = Whereabouts(
            host=platform.node(), weight_bytes=weight_bytes[0], expert_bytes=weight_bytes[1]
        )
        self._model, self._modules = model, experts_modules(model)
        self._logical = torch.from_numpy(placement.physical_to_logical)
        self._exchange: ExpertExchange | None = None
        if group.size > 1:
            self._exchange = ExpertExchange(group, placement, self.traces, backend)
        self.agree("the placement of experts", placement.digest)
        for module in self._modules:
            module.moesd_path.exchange = self._exchange
            module.moesd_path.traces = self.traces

    def agree(self, what: str, value: Any) -> None:
        """ValueError on all ranks unless all say the same: out of step, they would wait for ever."""
        said = self.group.gather_object(value)
        if any(other != said[0] for other in said):
            raise ValueError(f"{what} must be equal on all ranks; got {said} from rank 0 on")

    def idle(self) -> None:
        """A forward of the other ranks in which this one has no token."""
        if self._exchange is None:
            return
        form = self._form()
        for layer, module in enumerate(self._modules):
            local = local_of(module, module.moesd_path.packed, grouped)
            self._exchange.idle(layer, local, form)

    def barrier(self) -> None:
        """Where ranks meet outside of the clock, so that nobody waits inside it."""
        self.group.total([0])

    def total(self, numbers: Sequence[int]) -> list[int]:
        return self.group.total(numbers)

    def window(self, *, target_s: float) -> Window | None:
        """What all ranks recorded since the last call; None where nothing was."""
        taken = self.traces.take()
        if self._exchange is None and not taken[0]:
            return None
        return window_of(self.group, taken, self._about, target_s=target_s, logical=self._logical)

    def forget(self) -> None:
        """Drops what was recorded outside of a window."""
        self.traces.take()

    def _form(self) -> WireFormat:
        parameter: Tensor = next(self._model.parameters())
        top_k = next(
            m.top_k for m in self._model.modules() if isinstance(getattr(m, "top_k", None), int)
        )
        return WireFormat(self._model.config.hidden_size, top_k, parameter.dtype)
