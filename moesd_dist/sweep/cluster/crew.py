"""All engines that are on the cluster for one sweep: started, asked, and ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import RayError

from moesd_dist.sweep.cluster.live import Live, State, Terms
from moesd_dist.sweep.cluster.local import LocalNodes
from moesd_dist.sweep.driver import MakeEngine
from moesd_dist.sweep.grouping import EngineKey, Group
from moesd_dist.sweep.retries import RetryRule
from moesd_dist.sweep.schedule.costs import Costs
from moesd_dist.sweep.schedule.needs import Room
from moesd_dist.sweep.schedule.placement import bundles, strategy
from moesd_dist.sweep.schedule.work import Loaded, Start, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Where Ray runs, and how long anything is waited for."""

    address: str = ""  # empty: a cluster on this machine, for this sweep only
    nodes: int = 1  # of that one
    cpus_per_node: int = 0  # that each says it has; 0: this machine's cores
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    rule: RetryRule = field(default_factory=RetryRule)
    deadline_factor: float = 10.0
    deadline_min_s: float = 1800.0
    start_min_s: float = 2400.0  # no engine is given less to load
    place_s: float = 600.0
    sentinel_every: int = 0  # points of one node between two sentinels; 0: none
    drift_tolerance: float = 0.1
    close_s: float = 20.0  # what an engine has to end its own processes in, before it is killed

    @property
    def local(self) -> LocalNodes:
        return LocalNodes(count=self.nodes, cpus=self.cpus_per_node)


class Crew:
    """Engines by number; each has one call in flight, or rests."""

    def __init__(
        self,
        make_engine: MakeEngine,
        terms: Callable[[EngineKey], Terms],
        settings: ClusterSettings,
        costs: Costs,
    ) -> None:
        self._make, self._terms, self._settings, self._costs = make_engine, terms, settings, costs
        self._live: dict[int, Live] = {}
        self._count, self._sweep = 0, uuid4().hex

    def __iter__(self) -> Iterator[Live]:
        return iter(list(self._live.values()))

    def __getitem__(self, engine_id: int) -> Live:
        return self._live[engine_id]

    @property
    def loaded(self) -> list[Loaded]:
        """As the policy sees them."""
        return [live.loaded for live in self]

    @property
    def overdue(self) -> list[Live]:
        now = time.monotonic()
        return [live for live in self if live.due < now]

    def answers(self, within_s: float) -> list[Live]:
        """Those that have answered, after one has or the time is over."""
        calls = {live.call: live for live in self if live.call is not None}
        if not calls:
            time.sleep(within_s)
            return []
        ready, _ = ray.wait(list(calls), num_returns=1, timeout=within_s)
        if len(calls) > 1:
            ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        return [calls[call] for call in ready]

    def start(self, action: Start, rooms: Sequence[Room]) -> None:
        terms, by_id = self._terms(action.key), {room.node_id: room for room in rooms}
        parts = bundles(terms.needs, by_id, action.nodes)
        self._count += 1
        live = Live(self._count, action.key, action.nodes, terms, parts, strategy(terms.needs))
        live.works, live.due = [action.work], time.monotonic() + self._settings.place_s
        self._live[self._count] = live

    def load(self, live: Live) -> None:
        start_s = self._costs.start_s(live.key)
        within_s = max(self._settings.start_min_s, self._settings.deadline_factor * start_s)
        close_s = self._settings.close_s
        live.load(
            self._make,
            expected_s=start_s,
            within_s=within_s,
            close_s=close_s,
            sweep=self._sweep,
        )

    def submit(self, live: Live, works: Sequence[Work]) -> None:
        live.measure(works, within_s=self._deadline_s(live, [work.group for work in works]))

    def check(self, live: Live, sentinel: Group) -> None:
        """Is the node as fast as it was? Works that the engine was started for stay with it."""
        live.check(sentinel, within_s=self._deadline_s(live, [sentinel]))

    def _deadline_s(self, live: Live, groups: Sequence[Group]) -> float:
        """Models are loaded for an engine's first group, so its start is in every deadline."""
        expected = self._costs.start_s(live.key) + sum(map(self._costs.group_s, groups))
        settings, waits = self._settings, len(groups) * live.terms.limit.wait_s
        return max(settings.deadline_min_s, settings.deadline_factor * expected) + waits

    def close(self, live: Live) -> None:
        live.close(self._settings.close_s)

    def end(self, live: Live) -> None:
        live.works = []
        self._live.pop(live.engine_id).kill()

    def release(self, *, patiently: bool) -> None:
        """Ends all at once; patiently: those that rest or close already have time for it."""
        for live in self if patiently else ():
            if live.state is State.idle:
                self.close(live)
        closing = [live for live in self if live.state is State.closing]
        if closing and patiently:
            left = max(live.due for live in closing) - time.monotonic()
            calls = [live.call for live in closing if live.call is not None]
            ray.wait(calls, num_returns=len(calls), timeout=max(0.0, left))
        for live in self:
            with suppress(RayError):  # one that Ray has lost keeps nobody from the others
                self.end(live)
