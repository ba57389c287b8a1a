"""What an engine occupies on the nodes of a cluster, and what the nodes have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What one engine takes while it is loaded; `cpus` and `gpus` are of one rank, that is, one actor.

    Ranks are spread evenly over exactly `nodes` nodes. `whole_node` asks for all CPUs of its node:
    CPU engines side by side would share the memory bandwidth that is being measured. `labels` are
    Ray node labels that every node of it carries, such as `ray.io/accelerator-type`: `H200`.
    """

    ranks: int = 1
    nodes: int = 1
    cpus: int = 1
    gpus: int = 0
    whole_node: bool = False
    labels: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.ranks % self.nodes:
            raise ValueError(
                f"layout.nodes {self.nodes} does not divide the {self.ranks} data-parallel ranks; "
                "choose one that does"
            )

    @property
    def alone(self) -> bool:
        """Whether it has its nodes' CPUs to itself: no other engine, only its own ranks."""
        return self.whole_node and not self.gpus

    @property
    def all_gpus(self) -> int:
        return self.ranks * self.gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A node as a whole: what it has, whoever uses it now."""

    node_id: str
    cpus: int
    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
