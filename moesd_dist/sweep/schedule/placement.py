"""What an engine takes of its nodes, and whether a node could ever hold it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from moesd_dist.sweep.schedule.needs import Needs, Room


def bundles(
    needs: Needs, rooms_by_id: Mapping[str, Room], nodes: tuple[str, ...]
) -> list[dict[str, float]]:
    """The bundles of Ray's placement group: one a rank on one node, one a node on several."""
    parts = needs.ranks if needs.nodes == 1 else 1  # that a node's share is divided into
    found = []
    for node in nodes:
        cpus, gpus = share(needs, rooms_by_id[node])
        counts = {"CPU": cpus // parts, "GPU": gpus // parts}
        found.append({name: float(count) for name, count in counts.items() if count})
    return found


def strategy(needs: Needs) -> str:
    """Ray's placement strategy; only the strict ones are guarantees."""
    return "STRICT_SPREAD" if needs.nodes > 1 else "STRICT_PACK"


def share(needs: Needs, room: Room) -> tuple[int, int]:
    """CPUs and GPUs that an engine takes of one of its nodes."""
    ranks = needs.ranks // needs.nodes
    cpus = max(room.cpus, ranks * needs.cpus) if needs.alone else ranks * needs.cpus
    return cpus, ranks * needs.gpus


def matches(needs: Needs, room: Room) -> bool:
    return all(room.labels.get(name) == value for name, value in needs.labels)


def capacity(needs: Needs, room: Room) -> int:
    """How many shares of such engines an empty node holds at once."""
    if not matches(needs, room):
        return 0
    asked = share(needs, room)
    fits = [has // want for want, has in zip(asked, (room.cpus, room.gpus), strict=True) if want]
    return min(fits, default=0)


def shunned_nodes(needs: Needs, rooms: Sequence[Room], avoid: Collection[str]) -> Collection[str]:
    """The nodes to avoid, or none if only they could hold the engine."""
    others = [room for room in rooms if room.node_id not in avoid and capacity(needs, room)]
    return avoid if len(others) >= needs.nodes else ()


def check_room(needs: Needs, rooms: Sequence[Room]) -> None:
    """ValueError if the cluster could never hold the engine: Ray would wait for ever."""
    matching = [room for room in rooms if matches(needs, room)]
    if len(matching) < needs.nodes and len(rooms) > len(matching):
        _refuse_labels(needs, rooms, len(matching))
    if sum(capacity(needs, room) > 0 for room in matching) < needs.nodes:
        has = "; ".join(f"{room.cpus} and {room.gpus}" for room in matching) or "nothing"
        raise ValueError(
            f"{_wants(needs)}; the cluster's nodes have {has}; choose hardware=cpu, lower "
            "layout.dp_size, hardware.cpus_per_engine or gpus_per_engine, or spread the ranks with "
            "layout.nodes=N"
        )


def _refuse_labels(needs: Needs, rooms: Sequence[Room], matching: int) -> None:
    asked = ", ".join(f"{name}={value}" for name, value in needs.labels)
    names = [name for name, _ in needs.labels]
    carried = {"/".join(room.labels.get(n, "none") for n in names) for room in rooms}
    if matching:
        who = f"{needs.nodes} nodes are needed and only {matching} carry {asked}"
    else:
        who = f"no node carries {asked}"
    raise ValueError(
        f"{who}; the nodes carry {', '.join(sorted(carried))}; add such a node, or change "
        "hardware.accelerator or hardware.labels"
    )


def _wants(needs: Needs) -> str:
    each = f"{needs.cpus} CPUs and {needs.gpus} GPUs"
    if needs.ranks == 1:
        return f"an engine needs {each} on one node"
    ranks = f"{needs.ranks} data-parallel ranks need {needs.ranks} x {each}"
    return f"{ranks} on one node" if needs.nodes == 1 else f"{ranks} on {needs.nodes} nodes, evenly"
