"""An engine over several data-parallel ranks: one actor a rank, which live and die together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from moesd_dist.records import Outcome, RankPlace
from moesd_dist.records.neighbours import Neighbours
from moesd_dist.sweep.cluster.actors import Answer, Broken, Outlook, RankActor, cause
from moesd_dist.sweep.driver import MakeEngine
from moesd_dist.sweep.grouping import EngineKey, Group
from moesd_dist.sweep.pairing import LoadLimit, failure
from moesd_dist.sweep.ranks import by_name, merge

BLAME_S = 2.0  # the ranks that lose a dead one often report before its death is known


class Gang:
    """The ranks of one engine: placed together, asked together, and ended together.

    Itself an actor, so that waiting for a slow rank holds up no other engine. After a rank has died
    or raised, the others may hang in a collective: all are ended, and the engine is broken.
    """

    def __init__(self, bundles: Any, *, options: Mapping[str, Any], close_s: float) -> None:
        self._bundles, self._options, self._close_s = bundles, options, close_s
        self._ranks: list[Any] = []

    def start(self, make_engine: MakeEngine, key: EngineKey, limit: LoadLimit) -> Broken | None:
        self._limit, size = limit, key.layout.dp_size
        self._ranks = ranks_on(self._bundles, size, RankActor, self._options)
        try:
            places = places_of(self._ranks)
            # All at once: engines may meet while they load.
            answers(
                [
                    rank.start.remote(make_engine, replace(key, place=place))
                    for rank, place in zip(self._ranks, places, strict=True)
                ]
            )
        except RanksBroke as broke:
            return self._ended(broke)
        return None

    def measure(self, groups: Sequence[Group]) -> Answer:
        found: list[tuple[Outcome, ...]] = []
        for group in groups:
            try:
                found.append(self._measured(group))
            except RanksBroke as broke:
                return Answer(outcomes=tuple(found), broken=self._ended(broke))
        return Answer(outcomes=tuple(found))

    def close(self) -> None:
        """To be called once more does no harm."""
        end(self._ranks, within_s=self._close_s)
        self._ranks = []

    def _measured(self, group: Group) -> tuple[Outcome, ...]:
        agreed = _agreed(self._ask("outlook", group, self._limit))
        by_rank = self._ask("measure", group, self._limit, agreed)
        try:
            return tuple(merge(by_rank))
        except ValueError as error:  # they did not measure the same
            return tuple(failure(p, error) for p in group.wanted)

    def _ended(self, broke: RanksBroke) -> Broken:
        """A rank that did not answer is not waited for again: it may be stuck, or out of reach."""
        size, silent = len(self._ranks), [self._ranks[rank] for rank in sorted(broke.silent)]
        end(self._ranks, within_s=self._close_s, unheard=silent)
        self._ranks = []
        return broke.told(size)

    def _ask(self, method: str, *arguments: Any) -> list[Any]:
        return answers([getattr(rank, method).remote(*arguments) for rank in self._ranks])


def ranks_on(
    group: PlacementGroup, size: int, kind: type[RankActor], options: Mapping[str, Any]
) -> list[Any]:
    """An actor a rank. Bundles hold one each, or, over several nodes, as many as share a node."""

    def rank(number: int) -> Any:
        where = PlacementGroupSchedulingStrategy(
            group,
            placement_group_bundle_index=number * group.bundle_count // size,
            placement_group_capture_child_tasks=True,
        )
        return ray.remote(kind).options(**options, scheduling_strategy=where).remote()

    return [rank(number) for number in range(size)]


def places_of(ranks: Sequence[Any]) -> list[RankPlace]:
    """Where each of them meets the others: on rank 0's node."""
    ((address, port),) = answers([ranks[0].meeting_place.remote()])
    size = len(ranks)
    return [RankPlace(rank=r, size=size, address=address, port=port) for r in range(size)]


def end(actors: Sequence[Any], *, within_s: float, unheard: Sequence[Any] = ()) -> None:
    """Kills the actors after their engines had time to close what they hold, child processes say.

    All at once, since ranks may meet in it; one that is stuck does not answer and is killed anyway.
    `unheard` are those of them that nobody waits for.
    """
    closing = {actor: actor.close.remote() for actor in actors}
    awaited = [closing[actor] for actor in actors if actor not in unheard]
    if awaited:
        ray.wait(awaited, num_returns=len(awaited), timeout=within_s)
    for actor in actors:
        ray.kill(actor)


class RanksBroke(Exception):  # noqa: N818  (it says what happened)
    """What each rank that broke said of it, and which ranks said nothing in time."""

    def __init__(self, by_rank: Mapping[int, Broken], silent: frozenset[int]) -> None:
        super().__init__(by_rank, silent)
        self.by_rank, self.silent = by_rank, silent

    def told(self, size: int) -> Broken:
        reason, log = by_name({rank: (b.reason, b.log) for rank, b in self.by_rank.items()}, size)
        return Broken(reason=reason, log=log, lost=any(b.lost for b in self.by_rank.values()))


def _agreed(outlooks: Sequence[Outlook]) -> Outlook:
    """What one rank cannot do none does; of several reasons, the lowest rank's."""
    impossible = {k: v for own in reversed(outlooks) for k, v in own.impossible.items()}
    on_gpu = dict.fromkeys(line for own in outlooks for line in own.before.on_gpu)
    before = Neighbours(
        cores=max(own.before.cores for own in outlooks),
        on_gpu=tuple(on_gpu),
    )
    together = all(own.together for own in outlooks)
    return Outlook(impossible=impossible, together=together, before=before)


def answers(references: Sequence[Any], *, within_s: float = inf) -> list[Any]:
    """What each rank answers; once one is broken, the others have BLAME_S left to answer.

    RanksBroke, also for the ranks that have not answered when the time is over.
    """
    found: dict[int, Any] = {}
    waiting, deadline, broke = list(references), time.monotonic() + within_s, False
    while waiting:
        left_s = min(deadline - time.monotonic(), BLAME_S if broke else inf)
        ready, waiting = ray.wait(waiting, timeout=None if left_s == inf else max(0.0, left_s))
        if not ready:
            break
        found[references.index(ready[0])] = answer = _received(ready[0])
        broke = broke or isinstance(answer, Broken)
    broken = {k: a for k, a in found.items() if isinstance(a, Broken)}
    silent = frozenset(range(len(references))) - found.keys()
    if not broken:
        late = Broken(reason=f"no answer within {within_s:.0f} s", log="")
        broken = dict.fromkeys(silent, late)
    if broken:
        raise RanksBroke(broken, silent)
    return [found[rank] for rank in range(len(references))]


def _received(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayError as error:
        return Broken(reason=f"its worker died: {cause(error)}", log=str(error), lost=True)
