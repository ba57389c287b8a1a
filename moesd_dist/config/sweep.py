"""What is varied, how often it is measured, and where the result is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from moesd_dist.config.checks import at_least, plain
from moesd_dist.theory.choices.design import Objective

_LEAST = {"batch_size": 1, "gamma": 0, "top_k": 1, "temperature": 0, "ranks": 1}


@dataclass
class AdaptiveConf:
    """Counts are of SD points; each brings its baseline."""

    objective: Objective = Objective.recommendation
    budget: int = 12
    per_round: int = 2
    start: int = 4
    target_interval: float = 0.03

    def __post_init__(self) -> None:
        at_least("sweep.adaptive.per_round", self.per_round, 1)
        at_least("sweep.adaptive.target_interval", self.target_interval, 0)
        at_least("sweep.adaptive.start", self.start, 4)  # what a fit of step times needs
        if self.budget < self.start:
            raise ValueError(
                f"sweep.adaptive.budget {self.budget} is below its start of {self.start} points; "
                "raise it, or lower sweep.adaptive.start to 4 or more"
            )


@dataclass
class SweepConf:
    """Axes are lists; one value is a list of one. `+sweep.axes={workload.seed: [0, 1]}` sweeps any other field."""

    name: str = "sweep"
    batch_size: list[int] = field(default_factory=lambda: [1])
    gamma: list[int] = field(default_factory=lambda: [0])
    top_k: list[int] = field(default_factory=list)
    temperature: list[float] = field(default_factory=lambda: [0.0])
    workload: list[str] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)  # that share the experts; 1 exchanges nothing
    axes: dict[str, Any] = field(default_factory=dict)
    # [{batch_size: [1, 8], gamma: [4, 2]}]: fields that step together
    zipped: list[Any] = field(default_factory=list)
    # [{batch_size: [32, 64], gamma: 4}]: points that are left out
    exclude: list[Any] = field(default_factory=list)
    extends: str = ""  # the id of a sweep that goes on with more points
    control: bool = False
    repeats: int = 5
    warmup_rounds: int = 2
    window_tokens: int = 128
    end_to_end_repeats: int = 1
    adaptive: AdaptiveConf | None = None  # null measures every point

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            for value in plain(getattr(self, name)):
                at_least(f"sweep.{name}", value, least)
            for mapping in plain(self.zipped):
                for value in plain(mapping.get(name)) if isinstance(mapping, dict) else []:
                    at_least(f"sweep.zipped.{name}", value, least)
        for name in ("batch_size", "gamma", "temperature"):
            if not plain(getattr(self, name)):
                raise ValueError(f"sweep.{name} is an empty list; give at least one value")
        at_least("sweep.repeats", self.repeats, 1)
        at_least("sweep.warmup_rounds", self.warmup_rounds, 1)


@dataclass
class ClusterConf:
    """Seconds are wall-clock; an attempt is one try of one group."""

    address: str = ""
    nodes: int = 1  # of a cluster on this machine; they share its cores
    cpus_per_node: int = 0  # that each of those says it has; 0: this machine's cores
    attempts: int = 3  # of a group whose worker, node or answer was lost
    attempts_on_error: int = 2  # of one whose engine raised
    backoff_s: float = 5.0  # before the second attempt; doubles with each
    deadline_factor: float = 10.0  # of what the plan expects a group to take
    deadline_min_s: float = 900.0  # no deadline is shorter
    place_s: float = 600.0  # how long nodes may be held by others
    sentinel_every: int = 25  # points between two sentinels of a node; 0: none
    drift_tolerance: float = 0.1  # of a sentinel's seconds, beyond its interval
    runtime_env: dict[str, Any] = field(default_factory=dict)  # Ray's, for the workers
    wheels: str = ""  # a folder of wheels that workers install from, without a network

    def __post_init__(self) -> None:
        for name in ("attempts", "attempts_on_error", "deadline_factor"):
            at_least(f"cluster.{name}", getattr(self, name), 1)
        for name in ("backoff_s", "deadline_min_s", "place_s", "sentinel_every", "drift_tolerance"):
            at_least(f"cluster.{name}", getattr(self, name), 0)
        at_least("cluster.nodes", self.nodes, 1)
        at_least("cluster.cpus_per_node", self.cpus_per_node, 0)
        if self.address and (self.nodes > 1 or self.cpus_per_node):
            raise ValueError(
                "cluster.nodes and cluster.cpus_per_node are of a cluster that is started here; "
                f"the one at cluster.address={self.address} has its own; leave them away"
            )

    @property
    def share_a_machine(self) -> bool:
        """Whether engines on different nodes would disturb each other."""
        return not self.address and self.nodes > 1


@dataclass
class TrackingConf:
    uri: str = "sqlite:///mlflow.db"
    experiment: str = "moesd-dist"
    journal: str = (
        ""  # the folder of the journals; empty: beside a sqlite database, else the user's state
    )
    patience_s: float = 120.0  # how long the end of a sweep waits for a store that does not answer
