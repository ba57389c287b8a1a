"""The nodes that a plan reckons with: of the cluster that answers, of this machine, or assumed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from moesd_dist.config import Conf, Launcher
from moesd_dist.engines import nvidia_smi
from moesd_dist.planning.expected import ACCELERATOR
from moesd_dist.sweep.schedule.needs import Needs, Room
from moesd_dist.sweep.schedule.placement import check_room, share


@dataclass(frozen=True, slots=True, kw_only=True)
class AtHand:
    """`notes` say, for a person, where the nodes are from and what they lack."""

    rooms: tuple[Room, ...]
    notes: tuple[str, ...]


def at_hand(conf: Conf, needs: Sequence[Needs]) -> AtHand:
    """Where the engines cannot all be placed, the nodes of the widest of them are assumed."""
    if conf.launcher is Launcher.inline:
        return AtHand(rooms=(_one_at_a_time(needs),), notes=("in this process, one at a time",))
    found = _of_cluster(conf) if conf.cluster.address else _of_this_machine(conf)
    try:
        for one in needs:
            check_room(one, found.rooms)
    except ValueError as error:
        rooms = _assumed(needs)
        lacking = f"there is no room for all engines there: {str(error).partition(';')[0]}"
        return AtHand(rooms=rooms, notes=(*found.notes, lacking, f"assumed: {_counted(rooms)}"))
    return found


def _of_cluster(conf: Conf) -> AtHand:
    from moesd_dist.sweep.cluster.visit import rooms_of  # Ray: nobody else here needs it

    try:
        rooms = tuple(rooms_of(conf.cluster.address))
    except ValueError as error:
        here = _of_this_machine(conf)
        return AtHand(rooms=here.rooms, notes=(str(error).partition(";")[0], *here.notes))
    return AtHand(rooms=rooms, notes=(f"the cluster at {conf.cluster.address}: {_counted(rooms)}",))


def _of_this_machine(conf: Conf) -> AtHand:
    gpus = nvidia_smi.own_gpus()  # those that Ray would see
    chosen = ("--query-gpu=name", "-i", ",".join(gpus), "--format=csv,noheader")
    names = nvidia_smi.ask(*chosen).splitlines() if gpus else []
    wanted = conf.hardware.accelerator
    labels = dict(conf.hardware.labels)
    if wanted and any(wanted in name for name in names):
        labels[ACCELERATOR] = wanted
    rooms = tuple(
        Room(
            node_id=f"here {place + 1}",
            cpus=conf.cluster.cpus_per_node or os.cpu_count() or 1,
            gpus=0 if place else len(gpus),
            labels={} if place else labels,
        )
        for place in range(conf.cluster.nodes)
    )
    return AtHand(rooms=rooms, notes=(f"this machine: {_counted(rooms)}",))


def _assumed(needs: Sequence[Needs]) -> tuple[Room, ...]:
    """As many nodes as the widest engine spans, each with what the largest share asks for."""
    asked = [share(one, Room(node_id="", cpus=one.cpus)) for one in needs]
    labels = {name: value for one in needs for name, value in one.labels}
    cpus, gpus_each = max(c for c, _ in asked), max(g for _, g in asked)
    count = max(one.nodes for one in needs)
    return tuple(
        Room(node_id=f"assumed {place + 1}", cpus=cpus, gpus=gpus_each, labels=labels)
        for place in range(count)
    )


def _one_at_a_time(needs: Sequence[Needs]) -> Room:
    """A node that holds any of the engines, and never two."""
    (room, *_) = _assumed(needs)
    return room


def _counted(rooms: Sequence[Room]) -> str:
    cpus, cards = sum(room.cpus for room in rooms), sum(room.gpus for room in rooms)
    nodes = "1 node" if len(rooms) == 1 else f"{len(rooms)} nodes"
    return f"{nodes}, {cpus} CPUs, {cards} GPUs"
