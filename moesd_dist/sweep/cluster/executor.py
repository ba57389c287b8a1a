"""The same sweep on Ray: one actor per loaded engine, the driver alone writes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import remove_placement_group

from moesd_dist.records import Failed, Outcome
from moesd_dist.sweep.arrival import Arrival
from moesd_dist.sweep.cluster.actors import EngineActor
from moesd_dist.sweep.cluster.gang import Gang, end, reserve
from moesd_dist.sweep.cluster.room import check_room, nodes
from moesd_dist.sweep.driver import MakeEngine, by_engine
from moesd_dist.sweep.pairing import EngineKey, Group, LoadLimit, engine_key

GANG_S = 5.0  # on top, for a gang to end ranks that did not close in time


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Where Ray runs and what one engine, or one data-parallel rank of it, occupies.

    `whole_node` gives a CPU engine a node of its own: engines side by side would share the memory
    bandwidth that is being measured. Ranks share it whatever is done, so they take
    `cpus_per_engine`. `gpus_per_engine` is for one device of a tensor-parallel engine.
    """

    address: str = ""  # empty: a cluster on this machine, for this sweep only
    cpus_per_engine: int = 1
    gpus_per_engine: int = 0
    threads: int = 1
    whole_node: bool = True
    close_s: float = 20.0  # what an engine has to end its own processes in, before it is killed


class RayExecutor:
    """Keeps one group in flight per engine; Ray decides which engines run at once."""

    def __init__(
        self, make_engine: MakeEngine, limit: LoadLimit, settings: ClusterSettings
    ) -> None:
        self._make, self._limit, self._settings = make_engine, limit, settings
        self._queues: dict[EngineKey, deque[Group]] = {}
        self._actors: dict[EngineKey, Any] = {}
        self._bundles: dict[EngineKey, Any] = {}

    def run(self, todo: Sequence[Group]) -> Iterator[Arrival]:
        if not ray.is_initialized():
            start_ray(self._settings)
        self._queues = {}
        for group in by_engine(todo):
            self._queues.setdefault(engine_key(group), deque()).append(group)
        self._release(*(self._actors.keys() - self._queues.keys()))
        flying = dict(self._submit(key) for key in list(self._queues))
        while flying:
            ready, _ = ray.wait(list(flying), num_returns=1)
            key, group = flying.pop(ready[0])
            yield Arrival(outcomes=tuple(self._collect(ready[0], key, group)))
            if self._queues[key]:
                flying |= [self._submit(key)]
            elif flying:  # the last engine stays for the next round
                self._release(key)

    def close(self) -> None:
        self._release(*self._actors)
        if ray.is_initialized():
            ray.shutdown()

    def _submit(self, key: EngineKey) -> tuple[Any, tuple[EngineKey, Group]]:
        group = self._queues[key].popleft()
        if key not in self._actors:
            self._actors[key] = self._started(key)
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

    def _started(self, key: EngineKey) -> Any:
        wanted, size = self._wanted(key), key.layout.dp_size
        check_room(wanted, size)
        environment = {
            "OMP_NUM_THREADS": str(self._settings.threads),
            "OMP_WAIT_POLICY": "PASSIVE",
            # Ray would kill an engine's process at once and orphan those that it started; left alone,
            # it sees that its parent is gone and takes them with it.
            "RAY_kill_child_processes_on_worker_exit": "0",
        }
        options: dict[str, Any] = {
            "num_cpus": wanted["CPU"],
            "num_gpus": wanted["GPU"],
            "max_restarts": 0,
            "runtime_env": {"env_vars": environment},
        }
        if size == 1:
            actor = ray.remote(EngineActor).options(**options)
            return actor.remote(self._make, key, self._limit)
        gang = ray.remote(Gang).options(num_cpus=0, max_restarts=0)  # its ranks do the work
        # Reserved from here: Ray would not give back what a gang that died had reserved itself.
        bundles = self._bundles[key] = reserve(options, size)
        close_s = self._settings.close_s
        return gang.remote(self._make, key, self._limit, bundles, options=options, close_s=close_s)

    def _release(self, *keys: EngineKey) -> None:
        held = {key: self._actors.pop(key) for key in keys if key in self._actors}
        ranks = max((key.layout.dp_size for key in held), default=1)
        end(list(held.values()), within_s=self._settings.close_s + (GANG_S if ranks > 1 else 0))
        for key in held.keys() & self._bundles.keys():
            remove_placement_group(self._bundles.pop(key))

    def _wanted(self, key: EngineKey) -> dict[str, int]:
        """What an engine takes, or one rank of it."""
        settings = self._settings
        gpus = settings.gpus_per_engine * key.layout.tp_size
        if settings.whole_node and not gpus and key.layout.dp_size == 1:
            return {"CPU": int(max(node.get("CPU", 0) for node in nodes())), "GPU": 0}
        return {"CPU": max(settings.cpus_per_engine, 1), "GPU": gpus}


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
