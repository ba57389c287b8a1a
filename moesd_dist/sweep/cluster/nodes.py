"""The nodes of the cluster as Ray knows them now."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import ray

from moesd_dist.sweep.schedule.needs import Room

_LOOK_S = 1.0  # between two questions to the head


class Nodes:
    """Alive ones with all they have, whoever uses it; names stay known after a node is gone."""

    def __init__(self) -> None:
        self.rooms: list[Room] = []
        self._names: dict[str, str] = {}
        self._looked = float("-inf")

    def look(self) -> list[str]:
        """Asks again if it is time; says which nodes left or came since."""
        if time.monotonic() - self._looked < _LOOK_S:
            return []
        first, before = not self._names, {room.node_id for room in self.rooms}
        found = ray.nodes()
        self._names |= {node["NodeID"]: _name(node) for node in found}
        self.rooms = [_room(node) for node in found if node["Alive"]]
        self._looked = time.monotonic()
        now = {room.node_id for room in self.rooms}
        lost = [f"node {self._names[n]} left the cluster" for n in sorted(before - now)]
        came = [f"node {self._names[n]} joined the cluster" for n in sorted(now - before)]
        return lost + ([] if first else came)

    def place(self, nodes: Iterable[str]) -> str:
        """Names for a person, each once."""
        return ", ".join(dict.fromkeys(self._names.get(node, node[:8]) for node in nodes))


def rooms() -> list[Room]:
    """Every node that is alive."""
    return [_room(node) for node in ray.nodes() if node["Alive"]]


def _room(node: dict[str, Any]) -> Room:
    has = node["Resources"]
    labels = dict(node.get("Labels") or {})
    return Room(
        node_id=node["NodeID"],
        cpus=int(has.get("CPU", 0)),
        gpus=int(has.get("GPU", 0)),
        labels=labels,
    )


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:6]})"
