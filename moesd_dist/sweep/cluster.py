"""The same sweep on Ray: one actor per loaded engine, the driver alone writes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from moesd_dist.records import Failed, Outcome
from moesd_dist.sweep.driver import MakeEngine, by_engine, measure_or_fail
from moesd_dist.sweep.pairing import EngineKey, Group, LoadLimit, engine_key


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Where Ray runs and what one engine occupies.

    `whole_node` gives a CPU engine a node of its own: engines side by side would share the memory
    bandwidth that is being measured.
    """

    address: str = ""  # empty: a cluster on this machine, for this sweep only
    cpus_per_engine: int = 1
    gpus_per_engine: int = 0
    threads: int = 1
    whole_node: bool = True


class EngineActor:
    """Holds one engine on a node and measures groups on it."""

    def __init__(self, make_engine: MakeEngine, key: EngineKey, limit: LoadLimit) -> None:
        self._engine, self._limit = make_engine(key), limit

    def measure(self, group: Group) -> list[Outcome]:
        return measure_or_fail(self._engine, group, self._limit)


class RayExecutor:
    """Keeps one group in flight per engine; Ray decides which engines run at once."""

    def __init__(
        self, make_engine: MakeEngine, limit: LoadLimit, settings: ClusterSettings
    ) -> None:
        self._make, self._limit, self._settings = make_engine, limit, settings
        self._queues: dict[EngineKey, deque[Group]] = {}
        self._actors: dict[EngineKey, Any] = {}

    def run(self, todo: Sequence[Group]) -> Iterator[tuple[Group, list[Outcome]]]:
        if not ray.is_initialized():
            start_ray(self._settings)
        self._queues = {}
        for group in by_engine(todo):
            self._queues.setdefault(engine_key(group), deque()).append(group)
        for key in self._actors.keys() - self._queues.keys():
            self._release(key)
        flying = dict(self._submit(key) for key in list(self._queues))
        while flying:
            ready, _ = ray.wait(list(flying), num_returns=1)
            key, group = flying.pop(ready[0])
            yield group, self._collect(ready[0], key, group)
            if self._queues[key]:
                flying |= [self._submit(key)]
            elif flying:  # the last engine stays for the next round
                self._release(key)

    def close(self) -> None:
        for key in list(self._actors):
            self._release(key)
        if ray.is_initialized():
            ray.shutdown()

    def _submit(self, key: EngineKey) -> tuple[Any, tuple[EngineKey, Group]]:
        group = self._queues[key].popleft()
        if key not in self._actors:
            actor = ray.remote(EngineActor).options(**self._resources())
            self._actors[key] = actor.remote(self._make, key, self._limit)
        return self._actors[key].measure.remote(group), (key, group)

    def _collect(self, reference: Any, key: EngineKey, group: Group) -> list[Outcome]:
        """The group's outcomes; a dead worker fails this group and the next one gets a fresh one."""
        try:
            return list(ray.get(reference))
        except RayError as error:
            self._release(key)
            first_line = str(error).strip().splitlines()[0]
            reason = f"the engine's worker died or would not start: {first_line}"
            return [Failed(point=p, reason=reason, log=str(error)) for p in group.wanted]

    def _release(self, key: EngineKey) -> None:
        actor = self._actors.pop(key, None)
        if actor is not None:
            ray.kill(actor)

    def _resources(self) -> dict[str, Any]:
        settings = self._settings
        cpus = settings.cpus_per_engine
        if settings.whole_node and not settings.gpus_per_engine:
            sizes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
            cpus = int(max(sizes))
        wanted = {"CPU": cpus, "GPU": settings.gpus_per_engine}
        if not any(_fits(wanted, node["Resources"]) for node in ray.nodes() if node["Alive"]):
            raise ValueError(
                f"no node of the cluster has {cpus} CPUs and {settings.gpus_per_engine} GPUs for an engine; "
                "choose hardware=cpu, or lower hardware.cpus_per_engine and gpus_per_engine"
            )
        threads = {"OMP_NUM_THREADS": str(settings.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        return {
            "num_cpus": cpus,
            "num_gpus": settings.gpus_per_engine,
            "max_restarts": 0,
            "runtime_env": {"env_vars": threads},
        }


def _fits(wanted: dict[str, int], resources: dict[str, float]) -> bool:
    return all(resources.get(name, 0) >= count for name, count in wanted.items())


def start_ray(settings: ClusterSettings) -> None:
    """Joins the cluster at the address, or starts one that only this machine can reach."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if settings.address:
        try:
            ray.init(address=settings.address, logging_level="ERROR", log_to_driver=False)
        except ConnectionError as error:
            raise ValueError(
                f"no Ray cluster answers at cluster.address={settings.address}; start one with "
                "`ray start --head`, or use cluster=local"
            ) from error
        return
    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
