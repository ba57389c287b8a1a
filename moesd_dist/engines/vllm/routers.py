"""Which experts vLLM's routers chose, layer by layer; a trace that cannot be right is refused."""

from __future__ import annotations

from functools import partial
from typing import Any

CERTAIN = 64  # tokens after which one and the same expert for all of them is no router's choice


class RouterTrace:
    """Counts, over decoding steps, distinct experts a layer and tokens an expert.

    Callbacks of the routers run in Python only without CUDA graphs: with them a trace would stay
    empty, or keep what was there when the graph was captured. `end` sees to both.
    """

    def __init__(self, model: Any) -> None:
        self._routers = [m for m in model.modules() if _is_routed(m)]
        self._on = False
        self._wrong = ""
        self._chosen: dict[int, Any] = {}
        self._tokens = 0
        self._reset()

    @property
    def layers(self) -> int:
        return len(self._routers)

    @property
    def num_experts(self) -> int:
        return int(self._routers[0].router.global_num_experts) if self._routers else 0

    def switch(self, on: bool) -> None:
        for place, module in enumerate(self._routers):
            module.router.set_capture_fn(partial(self._catch, place) if on else None)
        self._on = on
        self._reset()

    def begin(self, tokens: int) -> None:
        self._chosen, self._tokens = {}, tokens

    def end(self, *, counted: bool) -> None:
        """Adds the step's choices. What is wrong with them is said by `take`: an error in a step would
        end an engine whose core is a process of its own.
        """
        if not self._on or not self._routers or self._wrong:
            return
        try:
            self._add(counted=counted)
        except RuntimeError as error:
            self._wrong = str(error)

    def _add(self, *, counted: bool) -> None:
        """RuntimeError if a layer gave nothing, or not this step's choices."""
        missing = [place for place in range(self.layers) if place not in self._chosen]
        if missing:
            raise RuntimeError(
                f"no trace of layer {missing[0]}: {len(missing)} of {self.layers} routers were silent in a "
                "step; routing is traced without graphs only (enforce_eager)"
            )
        for place, ids in self._chosen.items():
            self._check(place, ids)
            if counted:
                self._count(place, ids[: self._tokens])
        self._forwards += counted

    def take(self) -> dict[str, Any]:
        """`seen` [layer], `layer_forwards`, `load` [layer][expert], `top_k`; then starts anew.

        RuntimeError for a trace that cannot be right.
        """
        wrong = self._wrong
        if wrong:
            self._reset()
            raise RuntimeError(wrong)
        found = {
            "seen": list(self._seen),
            "layer_forwards": self._forwards * self.layers,
            "load": [load.tolist() if load is not None else [] for load in self._load],
            "top_k": self._top_k,
        }
        self._reset()
        return found

    def _reset(self) -> None:
        self._seen = [0] * self.layers
        self._load: list[Any] = [None] * self.layers
        self._forwards = self._top_k = 0
        self._wrong = ""

    def _catch(self, place: int, ids: Any) -> None:
        self._chosen[place] = ids

    def _check(self, place: int, ids: Any) -> None:
        """A buffer that nobody wrote holds zeros; one of another step has another length."""
        if ids.shape[0] < self._tokens:
            raise RuntimeError(
                f"stale trace of layer {place}: {ids.shape[0]} tokens for a step of {self._tokens}"
            )
        mine = ids[: self._tokens]
        if bool((mine == mine.flatten()[0]).all()) and (
            ids.shape[1] > 1 or self._tokens >= CERTAIN
        ):
            raise RuntimeError(
                f"empty trace of layer {place}: expert {int(mine.flatten()[0])} for all {self._tokens} tokens"
            )

    def _count(self, place: int, ids: Any) -> None:
        load = ids.flatten().long().bincount(minlength=self.num_experts)
        self._seen[place] += int((load > 0).sum())
        self._load[place] = load if self._load[place] is None else self._load[place] + load
        self._top_k = int(ids.shape[1])


def _is_routed(module: Any) -> bool:
    router = getattr(module, "router", None)
    return hasattr(router, "set_capture_fn") and hasattr(module, "layer_id")
