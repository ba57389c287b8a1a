"""An engine on the cluster, from its place to its end: one Ray call in flight at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from moesd_dist.sweep.cluster.actors import EngineActor
from moesd_dist.sweep.cluster.gang import Gang
from moesd_dist.sweep.driver import MakeEngine
from moesd_dist.sweep.grouping import EngineKey, Group
from moesd_dist.sweep.pairing import LoadLimit
from moesd_dist.sweep.schedule.needs import Needs
from moesd_dist.sweep.schedule.work import Loaded, Work

NODE_ID = "ray.io/node-id"  # a label that Ray gives every node
GANG_S = 5.0  # on top, for a gang to end ranks that did not close in time


class State(Enum):
    placing = "placing"  # its nodes are not free yet
    loading = "loading"
    idle = "idle"
    busy = "busy"
    checking = "checking"  # measures a sentinel
    closing = "closing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How engines of one key run: what they take, and what others may."""

    needs: Needs
    limit: LoadLimit = field(default_factory=LoadLimit)


class Live:
    """`call` is what it was asked last; `due` is when the answer has to be there, by this clock."""

    def __init__(
        self,
        engine_id: int,
        key: EngineKey,
        nodes: tuple[str, ...],
        terms: Terms,
        bundles: Sequence[Mapping[str, float]],
        strategy: str,
    ) -> None:
        self.engine_id, self.key, self.nodes, self.terms = engine_id, key, nodes, terms
        self.works: list[Work] = []
        self.warm = False  # has measured: its models are loaded
        self.state, self.since, self.due = State.placing, time.monotonic(), float("inf")
        self.expected_s = 0.0
        self._actor: Any = None
        # Pinned to the nodes that were chosen: Ray alone would scatter small engines over nodes
        # that a wide one needs whole.
        pins = [{NODE_ID: node} for node in nodes]
        self._group: PlacementGroup = placement_group(
            [dict(bundle) for bundle in bundles], strategy=strategy, bundle_label_selector=pins
        )
        self.call: Any = self._group.ready()

    def load(
        self,
        make_engine: MakeEngine,
        *,
        expected_s: float,
        within_s: float,
        close_s: float,
        sweep: str,
    ) -> None:
        needs, key = self.terms.needs, self.key
        options = {
            # Ranks share what their node was reserved for; one takes it all.
            "num_cpus": self._group.bundle_specs[0]["CPU"] if self._is_one else needs.cpus,
            "num_gpus": needs.gpus,
            "max_restarts": 0,
            "runtime_env": {"env_vars": worker_environment(key.threads, sweep)},
        }
        place = PlacementGroupSchedulingStrategy(
            self._group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
        )
        if needs.ranks == 1:
            self._actor = (
                ray.remote(EngineActor).options(**options, scheduling_strategy=place).remote()
            )
        else:  # its ranks do the work
            gang = ray.remote(Gang).options(num_cpus=0, max_restarts=0, scheduling_strategy=place)
            self._actor = gang.remote(self._group, options=options, close_s=close_s)
        self._ask(State.loading, expected_s, within_s)
        self.call = self._actor.start.remote(make_engine, key, self.terms.limit)

    @property
    def _is_one(self) -> bool:
        needs = self.terms.needs
        return needs.alone and needs.ranks == 1

    def measure(self, works: Sequence[Work], *, within_s: float) -> None:
        self.works = list(works)
        self._ask(State.busy, sum(work.seconds for work in works), within_s)
        self.call = self._actor.measure.remote([work.group for work in works])

    def check(self, sentinel: Group, *, within_s: float) -> None:
        self._ask(State.checking, 0.0, within_s)
        self.call = self._actor.measure.remote([sentinel])

    def rest(self) -> None:
        self.works, self.call = [], None
        self._ask(State.idle, 0.0, float("inf"))

    def close(self, within_s: float) -> None:
        """Lets the engine end what it holds, child processes say; `kill` comes after it."""
        gang = GANG_S if self.terms.needs.ranks > 1 else 0.0
        self._ask(State.closing, 0.0, within_s + gang)
        self.call = self._actor.close.remote() if self._actor is not None else None

    def kill(self) -> None:
        """Ends what is left of it and gives its room back."""
        self.call = None
        if self._actor is not None:
            ray.kill(self._actor)
        remove_placement_group(self._group)

    @property
    def seconds(self) -> float:
        """Since it was asked."""
        return time.monotonic() - self.since

    @property
    def loaded(self) -> Loaded:
        """As the policy sees it."""
        left = max(0.0, self.expected_s - self.seconds)
        return Loaded(
            engine_id=self.engine_id,
            key=self.key,
            nodes=self.nodes,
            busy=self.state is not State.idle,
            free_in_s=0.0 if self.state is State.idle else left,
        )

    def _ask(self, state: State, expected_s: float, within_s: float) -> None:
        self.state, self.since, self.expected_s = state, time.monotonic(), expected_s
        self.due = self.since + within_s


def worker_environment(threads: int, sweep: str) -> dict[str, str]:
    """What an actor is started with."""
    return {
        "MOESD_SWEEP": sweep,  # engines of one sweep are not foreign to each other
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        # Ray would kill an engine's process at once and orphan those that it started; left alone,
        # it sees that its parent is gone and takes them with it.
        "RAY_kill_child_processes_on_worker_exit": "0",
    }
