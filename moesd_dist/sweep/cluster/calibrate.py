"""A function on every rank of a layout, as a gang of engines would be placed: for measuring hosts and links."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from uuid import uuid4

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from moesd_dist.records import RankPlace
from moesd_dist.sweep.cluster.actors import CalledRank
from moesd_dist.sweep.cluster.crew import ClusterSettings
from moesd_dist.sweep.cluster.gang import RanksBroke, answers, end, places_of, ranks_on
from moesd_dist.sweep.cluster.live import NODE_ID, worker_environment
from moesd_dist.sweep.cluster.nodes import rooms
from moesd_dist.sweep.cluster.start import start_ray, stop_ray
from moesd_dist.sweep.schedule.needs import Needs, Room
from moesd_dist.sweep.schedule.placement import bundles, capacity, check_room, strategy

T = TypeVar("T")


class RanksFailed(Exception):  # noqa: N818  (it says what happened)
    """A rank raised, died or did not answer; the message names it and says why, in one line."""


@contextmanager
def on_cluster(settings: ClusterSettings) -> Iterator[None]:
    """Joins the cluster, or starts it; left again only by who joined it."""
    if ray.is_initialized():
        yield
        return
    start_ray(settings.address, runtime_env=settings.runtime_env, local=settings.local)
    try:
        yield
    finally:
        stop_ray()


def on_ranks(
    function: Callable[[RankPlace], T],
    *,
    needs: Needs,
    settings: ClusterSettings,
    threads: int = 1,
    within_s: float = 600.0,
) -> list[T]:
    """What it returns on each rank, in order; it has to be importable on the nodes.

    Call it inside of `on_cluster`. ValueError if the cluster could never hold the ranks,
    RanksFailed for whatever goes wrong with one; all are ended in any case.
    """
    there = rooms()
    check_room(needs, there)
    group = _placed(needs, there, settings.place_s)
    try:
        return _called(function, needs, group, threads, within_s)
    except RanksBroke as broke:
        raise RanksFailed(" ".join(broke.told(needs.ranks).reason.split())) from broke
    finally:
        remove_placement_group(group)


def _called(
    function: Callable[[RankPlace], T],
    needs: Needs,
    group: PlacementGroup,
    threads: int,
    within_s: float,
) -> list[T]:
    options = {
        "num_cpus": needs.cpus,
        "num_gpus": needs.gpus,
        "max_restarts": 0,
        "runtime_env": {"env_vars": worker_environment(threads, uuid4().hex)},
    }
    ranks = ranks_on(group, needs.ranks, CalledRank, options)
    try:
        places = places_of(ranks)
        called = [r.call.remote(function, p) for r, p in zip(ranks, places, strict=True)]
        return answers(called, within_s=within_s)
    finally:
        end(ranks, within_s=0.0)


def _placed(needs: Needs, there: Sequence[Room], within_s: float) -> PlacementGroup:
    """Pinned to nodes, as a sweep's engines are; RanksFailed if others hold them for too long."""
    able = [room.node_id for room in there if capacity(needs, room)][: needs.nodes]
    nodes = tuple(able if needs.nodes > 1 else able * needs.ranks)
    parts = bundles(needs, {room.node_id: room for room in there}, nodes)
    group = placement_group(
        parts, strategy=strategy(needs), bundle_label_selector=[{NODE_ID: n} for n in nodes]
    )
    if not group.wait(within_s):
        remove_placement_group(group)
        raise RanksFailed(f"their nodes were held by others for {within_s:.0f} s (cluster.place_s)")
    return group
