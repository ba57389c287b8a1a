"""What the nodes of the cluster have, and whether they could ever hold an engine or its ranks."""

from __future__ import annotations

import ray


def nodes() -> list[dict[str, float]]:
    """What each node of the cluster has, whoever uses it now."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def check_room(wanted: dict[str, int], size: int) -> None:
    """ValueError if the cluster could never hold the engine or its ranks: Ray would wait for ever."""
    found = nodes()
    fitting = [
        min((int(n.get(k, 0) // v) for k, v in wanted.items() if v), default=size) for n in found
    ]
    if sum(fitting) < size:
        who = "an engine needs" if size == 1 else f"{size} data-parallel ranks need {size} x"
        has = "; ".join(f"{n.get('CPU', 0):.0f} and {n.get('GPU', 0):.0f}" for n in found)
        raise ValueError(
            f"{who} {wanted['CPU']} CPUs and {wanted['GPU']} GPUs on one node; the cluster's nodes "
            f"have {has}; choose hardware=cpu, or lower layout.dp_size, hardware.cpus_per_engine "
            "or gpus_per_engine"
        )
