"""Measures with vLLM: one LLM for each SD setting, the baseline in one of the same arguments."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from moesd_dist.engines.vllm.host import LoadedLLM, Timeouts
from moesd_dist.engines.vllm.installed import require_build
from moesd_dist.engines.vllm.limits import impossible, too_large
from moesd_dist.engines.vllm.memory import device_memory, fills_device, needed_bytes
from moesd_dist.engines.vllm.process import EngineDied
from moesd_dist.engines.vllm.settings import SEQUENCES, Setting, setting_of
from moesd_dist.records import Device, DraftMethod, Infeasible, RankPlace, Repeat, SweepPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class _Routing:
    """What the router was seen to choose in one point."""

    num_experts: int
    top_k: int


PORTS = 16  # that the data-parallel ranks of one LLM take, counted up from the first


class VllmEngine:
    """Implements the `Engine` port; nothing is started before the first warm-up."""

    def __init__(self, *, device: Device, place: RankPlace, timeouts: Timeouts) -> None:
        self._device, self._place, self._timeouts = device, place, timeouts
        self._build = require_build()
        self._loaded: dict[Setting, LoadedLLM] = {}  # the least recently used first
        self._broken: dict[tuple[Setting, int], EngineDied] = {}  # with room for so many sequences
        self._starts = self._restarts = 0
        self._seen: set[Setting] = set()
        self._about: dict[str, Any] = {}
        self._routing: dict[str, _Routing] = {}
        self._references: tuple[object, list[list[int]]] | None = None

    def describe(self) -> Mapping[str, str]:
        about = {k: v for k, v in self._about.items() if k.startswith("version.")}
        return about | {"host": platform.node(), "device_name": self._about.get("device", "")}

    def infeasible(self, point: SweepPoint) -> Infeasible | None:
        if reason := impossible(point, self._build, self._place):
            return Infeasible(point=point, reason=reason)
        memory = device_memory(self._device)
        if self._loaded:  # what is loaded makes room for what is asked for
            memory = replace(memory, free=memory.total)
        return too_large(point, memory, self._sequences(point))

    def together(self, points: Sequence[SweepPoint]) -> bool:
        """Whether one LLM for each setting among them can be loaded at once."""
        settings = {setting_of(p): p for p in points}
        if len(settings) > 1 and any(map(fills_device, settings.values())):
            return False
        missing = {s: p for s, p in settings.items() if s not in self._loaded}
        needed = sum(needed_bytes(p, self._sequences(p)) for p in missing.values())
        return needed <= device_memory(self._device).free

    def warm_up(self, point: SweepPoint) -> None:
        self._prepared(point, repeat=0).call("warm_up", point=point)

    def measure(self, point: SweepPoint, repeat: int) -> Repeat:
        before = self._restarts
        llm = self._prepared(point, repeat)
        measured: Repeat = llm.call("measure", point=point, repeat=repeat)
        if repeat == 0 and llm.about["num_experts"]:
            measured = self._with_routing(llm, point, measured)
        measured = replace(measured, engine_starts=self._restarts - before)
        return _untimed(measured) if point.untimed else measured

    def routing(self, point: SweepPoint) -> tuple[int, int]:
        found = self._routing.get(point.point_id)
        return (found.num_experts, found.top_k) if found else (0, 0)

    def close(self) -> None:
        for setting in list(self._loaded):
            self._loaded.pop(setting).close()

    def _prepared(self, point: SweepPoint, repeat: int) -> LoadedLLM:
        """The point's LLM; an oracle's knows what the target alone writes in this repeat."""
        if point.gamma == 0 or point.sd.method is not DraftMethod.oracle:
            return self.llm(point)
        key = (point.baseline, point.gamma, repeat)
        if self._references is None or self._references[0] != key:
            found = self.llm(point.baseline).call("references", point=point, repeat=repeat)
            self._references = (key, found)
        llm = self.llm(point)  # only now: the baseline's may have taken its place
        llm.call("set_references", sequences=self._references[1])
        return llm

    def llm(self, point: SweepPoint) -> LoadedLLM:
        """The LLM of the point's setting, started if need be; one that cannot start fails for good."""
        setting = setting_of(point)
        llm = self._loaded.pop(setting, None)
        enough = llm is not None and llm.sequences >= self._place.share(point.batch_size)
        if llm is not None and (llm.dead or not enough):
            llm.close()
            llm = None
        self._loaded[setting] = llm or self._start(setting, point)
        return self._loaded[setting]

    def _start(self, setting: Setting, point: SweepPoint) -> LoadedLLM:
        sequences = self._sequences(point)
        if broken := self._broken.get((setting, sequences)):
            raise EngineDied(broken.reason, broken.log)
        memory = device_memory(self._device)
        needed, alone = needed_bytes(point, sequences), fills_device(point)
        while self._loaded and (alone or needed > memory.free):
            self._loaded.pop(next(iter(self._loaded))).close()
            memory = device_memory(self._device)
        if found := too_large(point, memory, sequences):
            raise MemoryError(found.reason)
        self._restarts += setting in self._seen
        self._seen.add(setting)
        try:
            llm = LoadedLLM(
                point, self._meeting(), sequences=sequences, memory=memory, timeouts=self._timeouts
            )
        except EngineDied as error:
            self._broken[setting, sequences] = error
            raise
        self._about = llm.about
        return llm

    def _meeting(self) -> RankPlace:
        """Every LLM's ranks meet at ports of their own: those of the last one are still in use."""
        self._starts += 1
        return replace(self._place, port=self._place.port + PORTS * self._starts)

    def _sequences(self, point: SweepPoint) -> int:
        """Room for larger batches to come, so that they need no engine of their own."""
        return max(SEQUENCES, 1 << (self._place.share(point.batch_size) - 1).bit_length())

    def _with_routing(self, llm: LoadedLLM, point: SweepPoint, measured: Repeat) -> Repeat:
        found = llm.call("trace_routing", point=point, repeat=0)
        self._routing[point.point_id] = _Routing(
            num_experts=llm.about["num_experts"], top_k=found["top_k"]
        )
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
