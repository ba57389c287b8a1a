"""Which LLMs are loaded: one a setting, the least recently used making room for the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from moesd_dist.engines.vllm.host import LoadedLLM, Timeouts
from moesd_dist.engines.vllm.limits import too_large
from moesd_dist.engines.vllm.memory import (
    DeviceMemory,
    device_memory,
    fills_device,
    needed_bytes,
)
from moesd_dist.engines.vllm.process import EngineDied
from moesd_dist.engines.vllm.settings import SEQUENCES, Setting, setting_of
from moesd_dist.records import Device, Infeasible, RankPlace, SweepPoint

PORTS = 16  # that the data-parallel ranks of one LLM take, counted up from the first


class LoadedLLMs:
    """Starts an LLM when it is first asked for; one that could not start fails for good."""

    def __init__(self, device: Device, place: RankPlace, timeouts: Timeouts) -> None:
        self._device, self._place, self._timeouts = device, place, timeouts
        self._loaded: dict[Setting, LoadedLLM] = {}  # the least recently used first
        self._broken: dict[tuple[Setting, int], EngineDied] = {}  # with room for so many sequences
        self._seen: set[Setting] = set()
        self._starts = 0
        self.restarts = 0
        self.about: dict[str, Any] = {}  # of the one started last

    def llm(self, point: SweepPoint) -> LoadedLLM:
        """The LLM of the point's setting. EngineDied or MemoryError if it cannot be had."""
        setting = setting_of(point)
        llm = self._loaded.pop(setting, None)
        enough = llm is not None and llm.sequences >= self._place.share(point.batch_size)
        if llm is not None and (llm.dead or not enough):
            llm.close()
            llm = None
        self._loaded[setting] = llm or self._start(setting, point)
        return self._loaded[setting]

    def too_large(self, point: SweepPoint) -> Infeasible | None:
        memory = device_memory(self._device)
        if self._loaded:  # what is loaded makes room for what is asked for
            memory = replace(memory, free=memory.total)
        return too_large(point, memory, self._sequences(point))

    def together(self, points: Sequence[SweepPoint]) -> bool:
        """Whether one LLM for each setting among them, and those that are loaded, fit at once."""
        settings = {setting_of(p): p for p in points}
        if len(settings.keys() | self._loaded.keys()) > 1 and any(map(fills_device, points)):
            return False
        missing = {s: p for s, p in settings.items() if s not in self._loaded}
        needed = sum(needed_bytes(p, self._sequences(p)) for p in missing.values())
        return needed <= device_memory(self._device).free

    def close(self) -> None:
        for setting in list(self._loaded):
            self._loaded.pop(setting).close()

    def _start(self, setting: Setting, point: SweepPoint) -> LoadedLLM:
        sequences = self._sequences(point)
        if broken := self._broken.get((setting, sequences)):
            raise EngineDied(broken.reason, broken.log)
        self._make_room(point, sequences)
        self.restarts += setting in self._seen
        self._seen.add(setting)
        try:
            llm = LoadedLLM(
                point,
                self._meeting(),
                sequences=sequences,
                memory=device_memory(self._device),
                timeouts=self._timeouts,
            )
        except EngineDied as error:
            self._broken[setting, sequences] = error
            raise
        self.about = llm.about
        return llm

    def _make_room(self, point: SweepPoint, sequences: int) -> None:
        needed, alone = needed_bytes(point, sequences), fills_device(point)
        memory = self._memory()
        while self._loaded and (alone or needed > memory.free):
            self._loaded.pop(next(iter(self._loaded))).close()
            memory = self._memory()
        if found := too_large(point, memory, sequences):
            raise MemoryError(found.reason)

    def _memory(self) -> DeviceMemory:
        """Ranks go by what they have loaded, so that all of them close the same LLMs."""
        memory = device_memory(self._device)
        if self._place.size == 1:
            return memory
        return replace(memory, free=memory.total - sum(llm.needed for llm in self._loaded.values()))

    def _meeting(self) -> RankPlace:
        """Every LLM's ranks meet at ports of their own: those of the last one are still in use."""
        self._starts += 1
        return replace(self._place, port=self._place.port + PORTS * self._starts)

    def _sequences(self, point: SweepPoint) -> int:
        """Room for larger batches to come, so that they need no engine of their own."""
        return max(SEQUENCES, 1 << (self._place.share(point.batch_size) - 1).bit_length())
