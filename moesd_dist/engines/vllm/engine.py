"""Measures with vLLM: one LLM for each SD setting, the baseline in one of the same arguments."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from moesd_dist.engines.machine_facts import machine_facts
from moesd_dist.engines.vllm.host import LoadedLLM, Timeouts
from moesd_dist.engines.vllm.installed import require_build
from moesd_dist.engines.vllm.limits import impossible
from moesd_dist.engines.vllm.loaded import LoadedLLMs
from moesd_dist.engines.vllm.process import EngineDied, EngineRefused
from moesd_dist.engines.vllm.settings import in_eager_mode, known_shape, target_of
from moesd_dist.records import Device, DraftMethod, Infeasible, RankPlace, Repeat, Role, SweepPoint


class VllmEngine:
    """Implements the `Engine` port; nothing is started before the first warm-up."""

    def __init__(self, *, device: Device, place: RankPlace, timeouts: Timeouts) -> None:
        self._place, self._build = place, require_build()
        self._llms = LoadedLLMs(device, place, timeouts)
        self._device = device
        self._routing: dict[str, tuple[int, int]] = {}  # as it was seen, by point
        self._references: dict[object, list[list[int]]] = {}  # of one baseline, by gamma and repeat
        self._counted = 0  # restarts that a repeat has already told of

    def describe(self) -> Mapping[str, str]:
        about = self._llms.about
        versions = {key: text for key, text in about.items() if key.startswith("version.")}
        names = {"host": platform.node(), "device_name": about.get("device", "")}
        return versions | names | machine_facts(self._device)

    def infeasible(self, point: SweepPoint) -> Infeasible | None:
        if reason := impossible(point, self._build, self._place):
            return Infeasible(point=point, reason=reason)
        return self._llms.too_large(point)

    def together(self, points: Sequence[SweepPoint]) -> bool:
        return self._llms.together(points)

    def warm_up(self, point: SweepPoint) -> None:
        self._prepared(point, repeat=0).call("warm_up", point=point)

    def measure(self, point: SweepPoint, repeat: int) -> Repeat:
        llm = self._prepared(point, repeat)
        measured: Repeat = llm.call("measure", point=point, repeat=repeat)
        # Of its warm-up too: that is where an engine that made room is started again.
        starts, self._counted = self._llms.restarts - self._counted, self._llms.restarts
        measured = replace(measured, engine_starts=starts)
        if repeat == 0 and llm.about["num_experts"] and point.role is not Role.sentinel:
            measured = self._with_routing(point, measured)
        return _untimed(measured) if point.untimed else measured

    def routing(self, point: SweepPoint) -> tuple[int, int]:
        """As the router chose; by the config where its choice could not be seen."""
        if seen := self._routing.get(point.point_id):
            return seen
        shape = known_shape(target_of(point))
        return (shape.num_experts, shape.top_k) if shape else (0, 0)

    def close(self) -> None:
        self._llms.close()

    def llm(self, point: SweepPoint) -> LoadedLLM:
        """The LLM that serves the point, for questions that the port does not ask."""
        return self._llms.llm(point)

    def _prepared(self, point: SweepPoint, repeat: int) -> LoadedLLM:
        """The point's LLM; an oracle's knows what the target alone writes in this repeat."""
        if point.gamma == 0 or point.sd.method is not DraftMethod.oracle:
            return self.llm(point)
        key = (point.baseline, point.gamma, repeat)
        if key not in self._references:  # all at once, while the baseline's is loaded
            self._references = {
                (point.baseline, point.gamma, each): self.llm(point.baseline).call(
                    "references", point=point, repeat=each
                )
                for each in range(max(point.protocol.repeats, repeat + 1))
            }
        llm = self.llm(point)  # only now: the baseline's may have taken its place
        llm.call("set_references", sequences=self._references[key])
        return llm

    def _with_routing(self, point: SweepPoint, measured: Repeat) -> Repeat:
        """With the experts of a second, untimed pass: routers are silent inside CUDA graphs, so it is
        an engine without them that is watched. Where there is no room for one, or the trace cannot
        be right, the point keeps its times and has no experts (flag `no_routing`).
        """
        eager = in_eager_mode(point)
        alone = self._place.size == 1  # ranks must not decide by what is free on each of them
        if eager != point and not (alone and self._llms.together([eager])):
            return measured
        try:
            llm = self._prepared(eager, repeat=0)
            found = llm.call("trace_routing", point=eager, repeat=0)
        except (EngineRefused, EngineDied, MemoryError):
            return measured
        self._routing[point.point_id] = (llm.about["num_experts"], found["top_k"])
        return replace(
            measured,
            experts_seen=tuple(found["seen"]),
            layer_forwards=found["layer_forwards"],
            expert_load=tuple(tuple(row) for row in found["load"]),
        )


def _untimed(measured: Repeat) -> Repeat:
    """Without its seconds: of a repaired CPU build they would say nothing of any machine."""
    names = [f.name for f in fields(Repeat) if f.name.endswith("_s") or f.name == "seconds"]
    nothing: dict[str, Any] = dict.fromkeys(names, 0.0)
    return replace(measured, **nothing)
