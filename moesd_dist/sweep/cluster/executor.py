"""A sweep on Ray: engines where the policy wants them, and every group answered or tried again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import ray
from ray.exceptions import RayError

from moesd_dist.records import Failed
from moesd_dist.sweep.arrival import Arrival
from moesd_dist.sweep.cluster.actors import Answer, Broken, cause
from moesd_dist.sweep.cluster.crew import ClusterSettings, Crew
from moesd_dist.sweep.cluster.live import Live, State, Terms
from moesd_dist.sweep.cluster.nodes import Nodes
from moesd_dist.sweep.cluster.start import start_ray, stop_ray
from moesd_dist.sweep.driver import MakeEngine
from moesd_dist.sweep.grouping import EngineKey, Group, engine_key
from moesd_dist.sweep.guard import Guard
from moesd_dist.sweep.retries import Attempt
from moesd_dist.sweep.schedule.costs import Costs, FlatCosts
from moesd_dist.sweep.schedule.placement import check_room, shunned_nodes
from moesd_dist.sweep.schedule.policy import Policy
from moesd_dist.sweep.schedule.queue import Queue
from moesd_dist.sweep.schedule.work import Start, Submit, Work
from moesd_dist.sweep.stopping import Stop
from moesd_dist.sweep.watches import Watches

_LOOK_S = 0.2  # the longest wait in one go: of several signals meanwhile Python tells one
_BAD_NODES = 3  # on which no engine of a key started: it is not the nodes
_BATCH_S = 0.5  # of work in one call, so that short groups do not wait for the driver


class RayExecutor:
    """Ray keeps the nodes, places and ends the actors; the policy says what runs where."""

    def __init__(
        self,
        make_engine: MakeEngine,
        terms: Callable[[EngineKey], Terms],
        settings: ClusterSettings,
        *,
        costs: Costs | None = None,
        stop: Stop | None = None,
    ) -> None:
        self._terms, self._settings = terms, settings
        self._costs, self._stop = costs or FlatCosts(), Stop() if stop is None else stop
        self._crew = Crew(make_engine, terms, settings, self._costs)
        self._policy = Policy(
            lambda key: terms(key).needs,
            self._costs.start_s,
            one_by_one=not settings.address and settings.nodes > 1,
        )
        self._queue = Queue((), settings.rule)
        self._guard = Guard(
            Watches(every=settings.sentinel_every, tolerance=settings.drift_tolerance)
        )
        self._nodes = Nodes()
        self._failed_starts: dict[EngineKey, list[str]] = {}  # on which node each failed
        self._stuck_since = float("inf")

    def run(self, todo: Sequence[Group]) -> Iterator[Arrival]:
        """ValueError before anything is started, if the cluster could never hold an engine."""
        if not ray.is_initialized():
            settings = self._settings
            start_ray(settings.address, runtime_env=settings.runtime_env, local=settings.local)
        yield Arrival(notes=tuple(self._nodes.look()))
        works = [self._work(group) for group in todo]
        for key in dict.fromkeys(work.key for work in works):
            check_room(self._terms(key).needs, self._nodes.rooms)
        self._queue = Queue(works, self._settings.rule)
        self._guard.choose((work.key, work.group) for work in works)
        while self._unfinished():
            yield Arrival(notes=tuple(self._nodes.look()))
            yield from self._bereft()
            self._queue.wake()
            self._decide()
            for live in self._crew.answers(self._pause_s()):
                yield from self._answered(live)
            for live in self._crew.overdue:
                yield from self._overdue(live)
            yield from self._stuck()

    def release(self) -> None:
        """Ends all engines; those of a sweep that was stopped twice are not waited for."""
        self._crew.release(patiently=not self._stop.urgent)

    def close(self) -> None:
        try:
            self.release()
        finally:
            stop_ray()

    # -- what to do -----------------------------------------------------------------------------

    def _unfinished(self) -> bool:
        if self._stop:
            self._leave_the_rest()
        if self._queue or any(live.works for live in self._crew):
            return True
        for live in self._crew:
            if live.state is State.idle and not self._stop:
                sentinel = self._guard.closing(live.key, self._place(live))
                if sentinel is not None:
                    self._crew.check(live, sentinel)
        return any(live.state is State.checking for live in self._crew)

    def _leave_the_rest(self) -> None:
        """What is being measured may end; what only loads may not."""
        self._queue.clear()
        for live in self._crew:
            if live.state in (State.placing, State.loading, State.checking):
                self._crew.end(live)

    def _decide(self) -> None:
        actions = self._policy.decide(self._queue.waiting, self._crew.loaded, self._nodes.rooms)
        for action in actions:
            if isinstance(action, Submit | Start):
                self._queue.waiting.remove(action.work)
        for action in actions:
            match action:
                case Submit():
                    self._submit(self._crew[action.engine_id], action.work)
                case Start():
                    self._crew.start(action, self._nodes.rooms)
                case _:
                    self._crew.close(self._crew[action.engine_id])

    def _submit(self, live: Live, work: Work) -> None:
        """Short works go together; one that failed before goes alone, so that it harms no other."""
        works, seconds = [work], work.seconds
        if not self._queue.tried_before(work):
            while seconds < _BATCH_S and (more := self._fresh(live.key)) is not None:
                works, seconds = [*works, more], seconds + more.seconds
        self._crew.submit(live, works)

    def _fresh(self, key: EngineKey) -> Work | None:
        """The longest work of the key that was never tried; it waits no more."""
        untried = (
            w for w in self._queue.waiting.longest_first(key) if not self._queue.tried_before(w)
        )
        found = next(untried, None)
        if found is not None:
            self._queue.waiting.remove(found)
        return found

    def _pause_s(self) -> float:
        return min(_LOOK_S, max(0.0, self._queue.wakes_in_s()))

    # -- what happened --------------------------------------------------------------------------

    def _answered(self, live: Live) -> Iterator[Arrival]:
        try:
            answer = ray.get(live.call)
        except RayError as error:
            reason = f"the engine's worker died or would not start: {cause(error)}"
            yield from self._broke(live, Broken(reason=reason, log=str(error), lost=True))
            return
        match live.state:
            case State.placing:
                self._crew.load(live)
            case State.loading:
                yield from self._started(live, answer)
            case State.busy:
                yield from self._measured(live, answer)
            case State.checking:
                yield from self._checked(live, answer)
            case _:
                self._crew.end(live)

    def _started(self, live: Live, broken: Broken | None) -> Iterator[Arrival]:
        if broken is not None:
            yield from self._broke(live, broken)
            return
        self._failed_starts.pop(live.key, None)
        sentinel = self._guard.opening(live.key)
        if sentinel is None:
            self._submit(live, live.works[0])
        else:
            self._crew.check(live, sentinel)

    def _measured(self, live: Live, answer: Answer) -> Iterator[Arrival]:
        works, place, seconds = live.works, self._place(live), live.seconds
        warm, live.warm, failed = live.warm, True, False
        live.rest()
        for work, outcomes in zip(works, answer.outcomes, strict=False):
            if warm:  # an engine's first group loads its models
                self._costs.observed(work.group, seconds / len(works))
            attempt = Attempt(reason="", nodes=live.nodes, place=place)
            arrival = self._queue.answered(work, outcomes, attempt)
            self._guard.saw(live.key, place, arrival.outcomes)
            failed = failed or any(isinstance(o, Failed) for o in outcomes)
            yield arrival
        if answer.broken is not None:
            broke, *unharmed = works[len(answer.outcomes) :]
            for work in unharmed:
                self._queue.waiting.push(work)
            live.works = [broke]
            yield from self._broke(live, answer.broken)
        elif failed:  # what is tried again gets a fresh engine, and so does what comes after it
            self._crew.close(live)
        elif (sentinel := self._guard.due(live.key, place)) is not None:
            self._crew.check(live, sentinel)

    def _checked(self, live: Live, answer: Answer) -> Iterator[Arrival]:
        if answer.broken is not None:
            yield from self._broke(live, answer.broken)
            return
        arrival, again = self._guard.judged(live.key, self._place(live), answer.outcomes[0][0])
        for group in again:
            self._queue.waiting.push(self._work(group))
        yield arrival
        if live.works:
            self._submit(live, live.works[0])
        else:
            live.rest()

    def _overdue(self, live: Live) -> Iterator[Arrival]:
        waited = live.seconds
        match live.state:
            case State.closing:
                self._crew.end(live)
                return
            case State.placing:
                reason = f"its nodes were held by others for {waited:.0f} s (cluster.place_s)"
            case State.loading:
                reason = f"hung: the engine had not started after {waited:.0f} s"
            case _:
                reason = f"hung: no answer within its deadline of {waited:.0f} s"
        yield from self._broke(live, Broken(reason=reason, log="", lost=True))

    def _broke(self, live: Live, broken: Broken) -> Iterator[Arrival]:
        """The engine is of no use any more; its works are tried elsewhere, or given up."""
        if live.state is State.checking:  # no work's fault: the sentinel is not asked for again
            self._guard.judged(live.key, self._place(live), None)
            self._put_back(live)
        works, starting = live.works, live.state in (State.placing, State.loading)
        attempt = Attempt(
            reason=broken.reason,
            log=broken.log,
            lost=broken.lost,
            nodes=live.nodes,
            place=self._place(live),
        )
        self._crew.end(live)
        yield self._queue.tried(works, attempt)
        if works and starting:
            yield from self._not_started(live, attempt)

    def _not_started(self, live: Live, attempt: Attempt) -> Iterator[Arrival]:
        """Other nodes first; where they fail as well, nobody waits for the key any longer."""
        failed = self._failed_starts.setdefault(live.key, [])
        failed += dict.fromkeys(live.nodes)
        self._queue.avoid(live.key, live.nodes)
        others = [o for o in self._crew if o.key == live.key and o.state is not State.closing]
        rule, needs = self._settings.rule, live.terms.needs
        limit = rule.attempts if attempt.lost else rule.on_error
        tried_enough = len(failed) >= limit * needs.nodes
        left = shunned_nodes(needs, self._nodes.rooms, set(failed))  # empty: only they can hold it
        if len(set(failed)) >= _BAD_NODES * needs.nodes:
            left = ()
        if not others and (attempt.final or (tried_enough and not left)):
            self._failed_starts.pop(live.key)
            yield self._queue.given_up(live.key, attempt)

    def _put_back(self, live: Live) -> None:
        """Its works were not tried."""
        for work in live.works:
            self._queue.waiting.push(work)
        live.works = []

    def _bereft(self) -> Iterator[Arrival]:
        """Engines on a node that is gone: Ray may be long in saying so, for a place that it keeps."""
        alive = {room.node_id for room in self._nodes.rooms}
        for live in self._crew:
            if alive.issuperset(live.nodes):
                continue
            if live.state in (State.placing, State.loading):  # nothing was tried there yet
                self._put_back(live)
            reason = f"its node {self._place(live)} is lost"
            yield from self._broke(live, Broken(reason=reason, log="", lost=True))

    def _stuck(self) -> Iterator[Arrival]:
        """Nothing runs and nothing can start: nodes were lost. They have `place_s` to come back."""
        busy = any(live.call is not None for live in self._crew)
        if busy or not len(self._queue.waiting):
            self._stuck_since = float("inf")
            return
        self._stuck_since = min(self._stuck_since, time.monotonic())
        waited = time.monotonic() - self._stuck_since
        if waited >= self._settings.place_s:
            reason = f"no node could take its engine for {waited:.0f} s (cluster.place_s)"
            for key in list(self._queue.waiting.keys()):
                yield self._queue.given_up(key, Attempt(reason=reason))

    # -- small things ---------------------------------------------------------------------------

    def _work(self, group: Group) -> Work:
        return Work(group=group, key=engine_key(group), seconds=self._costs.group_s(group))

    def _place(self, live: Live) -> str:
        return self._nodes.place(live.nodes)
