"""What runs on a node of the cluster: a whole engine, or one rank of an engine over several."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import ray
from ray.exceptions import RayError

from moesd_dist.ports import Engine
from moesd_dist.records import Infeasible, Outcome, RankPlace, Repeat, SweepPoint
from moesd_dist.records.neighbours import Neighbours
from moesd_dist.sweep.driver import MakeEngine, measure_or_fail
from moesd_dist.sweep.grouping import EngineKey, Group
from moesd_dist.sweep.pairing import LoadLimit, measure_group, who_is_there

T = TypeVar("T")

_TOLD = 400  # characters of Ray's account; the log has all of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """An answer when something went wrong; `lost`: a process died, else the engine raised."""

    reason: str
    log: str
    lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of groups, in their order, up to the one that broke the engine, if one did."""

    outcomes: tuple[tuple[Outcome, ...], ...] = ()
    broken: Broken | None = None


def cause(error: RayError) -> str:
    """Ray's account of a lost worker without its tables: the first line, and why it thinks so."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    why = [line for line in lines[1:] if "dead because" in line or "exit type" in line]
    return " ".join([*lines[:1], *why])[:_TOLD]


class EngineActor:
    """Holds one engine on a node and measures groups on it."""

    _engine: Engine | None = None

    def start(self, make_engine: MakeEngine, key: EngineKey, limit: LoadLimit) -> Broken | None:
        def made() -> None:
            _say_where()
            self._engine, self._limit = make_engine(key), limit

        return _answer(made)

    def measure(self, groups: Sequence[Group]) -> Answer:
        assert self._engine is not None  # the executor starts it first
        found = [tuple(measure_or_fail(self._engine, group, self._limit)) for group in groups]
        return Answer(outcomes=tuple(found))

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What decides which steps a group is measured in: equal on all ranks, or they wait for ever."""

    impossible: Mapping[str, Infeasible]  # by point id
    together: bool  # `Engine.together` of the group's points
    before: Neighbours = field(default_factory=Neighbours)  # who else is there


class RankActor:
    """Holds the engine of one rank; what breaks is its answer, so that the gang hears of it."""

    _engine: Engine | None = None

    def meeting_place(self) -> tuple[str, int]:
        """This node's address as the cluster knows it, and a port that is free now."""
        # get_node_ip_address() may name an interface that the cluster does not use.
        own = ray.get_runtime_context().get_node_id()
        address = next(n["NodeManagerAddress"] for n in ray.nodes() if n["NodeID"] == own)
        with socket.socket() as free:
            free.bind((address, 0))
            return address, free.getsockname()[1]

    def start(self, make_engine: MakeEngine, key: EngineKey) -> Broken | None:
        def made() -> None:
            _say_where()
            self._engine = make_engine(key)

        return _answer(made)

    def outlook(self, group: Group, limit: LoadLimit) -> Outlook | Broken:
        return _answer(lambda: _outlook(self._started(), group, limit))

    def measure(self, group: Group, limit: LoadLimit, agreed: Outlook) -> list[Outcome] | Broken:
        def measured() -> list[Outcome]:
            return measure_group(_InStep(self._started(), agreed), group, limit, agreed.before)

        return _answer(measured)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()

    def _started(self) -> Engine:
        assert self._engine is not None  # the gang starts a rank before it asks it
        return self._engine


class CalledRank(RankActor):
    """A rank without an engine, which runs a function of its place."""

    def call(self, function: Callable[[RankPlace], T], place: RankPlace) -> T | Broken:
        def called() -> T:
            _say_where()
            return function(place)

        return _answer(called)


def _outlook(engine: Engine, group: Group, limit: LoadLimit) -> Outlook:
    found = [i for p in group.wanted if (i := engine.infeasible(p)) is not None]
    impossible = {i.point.point_id: i for i in found}
    order = (group.baseline, *group.points)
    left = [p for p in order if p.point_id not in impossible]
    before = who_is_there(group, limit)
    return Outlook(impossible=impossible, together=engine.together(left), before=before)


def _say_where() -> None:
    """The engine records its node, and does not know of Ray."""
    own = ray.get_runtime_context().get_node_id()
    node = next(n for n in ray.nodes() if n["NodeID"] == own)
    os.environ |= {"MOESD_NODE_ID": own, "MOESD_NODE": str(node["NodeManagerHostname"])}


def _answer(action: Callable[[], T]) -> T | Broken:
    try:
        return action()
    except _RankRaised as raised:
        error: BaseException = raised.error
    except Exception as raised_here:
        error = raised_here
    log = "".join(traceback.format_exception(error))
    return Broken(reason=f"{type(error).__name__}: {error}", log=log)


class _RankRaised(BaseException):
    """No `Exception`: `measure_group` would go on with the next point, out of step with the rest."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class _InStep:
    """A rank's engine that says what all ranks say, and lets no error pass for one point's."""

    def __init__(self, engine: Engine, agreed: Outlook) -> None:
        self._engine, self._agreed = engine, agreed

    def describe(self) -> Mapping[str, str]:
        return self._engine.describe()

    def infeasible(self, point: SweepPoint) -> Infeasible | None:
        return self._agreed.impossible.get(point.point_id)

    def together(self, points: Sequence[SweepPoint]) -> bool:
        return self._agreed.together

    def warm_up(self, point: SweepPoint) -> None:
        _or_end(lambda: self._engine.warm_up(point))

    def measure(self, point: SweepPoint, repeat: int) -> Repeat:
        return _or_end(lambda: self._engine.measure(point, repeat))

    def routing(self, point: SweepPoint) -> tuple[int, int]:
        return self._engine.routing(point)

    def close(self) -> None:
        self._engine.close()


def _or_end(action: Callable[[], T]) -> T:
    try:
        return action()
    except Exception as error:
        raise _RankRaised(error) from error
