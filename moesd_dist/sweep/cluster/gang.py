"""An engine over several data-parallel ranks: one actor a rank, which live and die together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from moesd_dist.records import Outcome, RankPlace
from moesd_dist.sweep.cluster.actors import Broken, Outlook, RankActor
from moesd_dist.sweep.driver import MakeEngine
from moesd_dist.sweep.pairing import EngineKey, Group, LoadLimit, failure
from moesd_dist.sweep.ranks import failed, merge

BLAME_S = 2.0  # the ranks that lose a dead one often report before its death is known


class Gang:
    """The ranks of one engine: placed together, asked together, and ended together.

    Itself an actor, so that waiting for a place or a slow rank holds up no other engine. After a
    rank has died or raised, the others may hang in a collective: all are ended, the group fails,
    and the next one gets fresh ranks.
    """

    def __init__(
        self,
        make_engine: MakeEngine,
        key: EngineKey,
        limit: LoadLimit,
        bundles: Any,
        *,
        options: Mapping[str, Any],
        close_s: float,
    ) -> None:
        self._make, self._key, self._limit = make_engine, key, limit
        self._bundles, self._options, self._close_s = bundles, options, close_s
        self._size = key.layout.dp_size
        self._ranks: list[Any] = []

    def measure(self, group: Group) -> list[Outcome]:
        try:
            by_rank = self._measured(group)
        except _RanksBroke as broke:
            self.close()
            return [failed(p, broke.by_rank, size=self._size) for p in group.wanted]
        try:
            return merge(by_rank)
        except ValueError as error:  # they did not measure the same
            return [failure(p, error) for p in group.wanted]

    def close(self) -> None:
        """To be called once more does no harm."""
        end(self._ranks, within_s=self._close_s)
        self._ranks = []

    def _measured(self, group: Group) -> list[list[Outcome]]:
        if not self._ranks:
            self._start()
        agreed = _agreed(self._ask("outlook", group))
        return self._ask("measure", group, self._limit, agreed)

    def _start(self) -> None:
        while not self._bundles.wait(60):  # another engine still has the room
            pass
        self._ranks = [self._rank(place) for place in range(self._size)]
        ((address, port),) = _answers([self._ranks[0].meeting_place.remote()])
        places = [
            RankPlace(rank=rank, size=self._size, address=address, port=port)
            for rank in range(self._size)
        ]
        # All at once: engines may meet while they load.
        _answers(
            [
                rank.start.remote(self._make, replace(self._key, place=place))
                for rank, place in zip(self._ranks, places, strict=True)
            ]
        )

    def _rank(self, place: int) -> Any:
        where = PlacementGroupSchedulingStrategy(self._bundles, placement_group_bundle_index=place)
        return ray.remote(RankActor).options(**self._options, scheduling_strategy=where).remote()

    def _ask(self, method: str, *arguments: Any) -> list[Any]:
        return _answers([getattr(rank, method).remote(*arguments) for rank in self._ranks])


def reserve(options: Mapping[str, Any], size: int) -> Any:
    """Room for each of `size` actors with these options, all of it or none; not waited for."""
    names = {"CPU": "num_cpus", "GPU": "num_gpus"}
    bundle = {k: options[name] for k, name in names.items() if options[name]}
    return placement_group([bundle] * size, strategy="PACK")


def end(actors: Sequence[Any], *, within_s: float) -> None:
    """Kills the actors after their engines had time to close what they hold, child processes say.

    All at once, since ranks may meet in it; one that is stuck does not answer and is killed anyway.
    """
    closing = [actor.close.remote() for actor in actors]
    if closing:
        ray.wait(closing, num_returns=len(closing), timeout=within_s)
    for actor in actors:
        ray.kill(actor)


class _RanksBroke(Exception):  # noqa: N818  (it says what happened)
    def __init__(self, by_rank: Mapping[int, tuple[str, str]]) -> None:
        super().__init__(by_rank)
        self.by_rank = by_rank


def _agreed(outlooks: Sequence[Outlook]) -> Outlook:
    """What one rank cannot do none does; of several reasons, the lowest rank's."""
    impossible = {k: v for own in reversed(outlooks) for k, v in own.impossible.items()}
    return Outlook(impossible=impossible, together=all(own.together for own in outlooks))


def _answers(references: Sequence[Any]) -> list[Any]:
    """What each rank answers; once one is broken, the others have BLAME_S left to answer."""
    found: dict[int, Any] = {}
    waiting, patience = list(references), None
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=patience)
        if not ready:
            break
        found[references.index(ready[0])] = answer = _received(ready[0])
        patience = BLAME_S if patience or isinstance(answer, Broken) else None
    broken = {k: (a.reason, a.log) for k, a in found.items() if isinstance(a, Broken)}
    if broken:
        raise _RanksBroke(broken)
    return [found[rank] for rank in range(len(references))]


def _received(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayError as error:
        first_line = str(error).strip().splitlines()[0]
        return Broken(reason=f"its worker died: {first_line}", log=str(error))
