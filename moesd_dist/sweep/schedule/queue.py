"""What waits for an engine, what rests after a failed attempt, and what is given up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from moesd_dist.records import Failed, Outcome, SweepPoint
from moesd_dist.sweep.arrival import Arrival
from moesd_dist.sweep.grouping import EngineKey, Group
from moesd_dist.sweep.retries import Attempt, Attempts, RetryRule
from moesd_dist.sweep.schedule.policy import Waiting
from moesd_dist.sweep.schedule.work import Work


class Queue:
    """Every point put in comes out once: measured, impossible, or `Failed` with all its attempts."""

    def __init__(
        self,
        works: Sequence[Work],
        rule: RetryRule,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.waiting = Waiting(works)
        self._attempts, self._rule, self._clock = Attempts(rule), rule, clock
        self._resting: list[tuple[float, Work]] = []

    def __bool__(self) -> bool:
        return bool(len(self.waiting) or self._resting)

    def clear(self) -> None:
        """Leaves what was not begun."""
        self.waiting, self._resting = Waiting(()), []

    def wake(self) -> None:
        """Those that have rested long enough wait again."""
        now = self._clock()
        for work in [work for until, work in self._resting if until <= now]:
            self.waiting.push(work)
        self._resting = [entry for entry in self._resting if entry[0] > now]

    def wakes_in_s(self) -> float:
        """Until the next one wakes; infinite if none rests."""
        return min((until for until, _ in self._resting), default=float("inf")) - self._clock()

    def tried_before(self, work: Work) -> bool:
        return any(self._attempts.count(point) for point in work.group.wanted)

    def answered(self, work: Work, outcomes: Sequence[Outcome], attempt: Attempt) -> Arrival:
        """Keeps what was measured; what the engine raised on is tried again, or given up.

        `attempt` says where; its reason is taken from the outcomes.
        """
        broken = [o for o in outcomes if isinstance(o, Failed)]
        for failed in broken:
            own = replace(attempt, reason=failed.reason, log=failed.log, lost=False)
            self._attempts.note([failed.point], own)
        kept = tuple(o for o in outcomes if not isinstance(o, Failed))
        again = self._again([work], [o.point for o in broken], attempt.place)
        return replace(again, outcomes=kept + again.outcomes)

    def tried(self, works: Sequence[Work], attempt: Attempt) -> Arrival:
        """Nothing came of these works."""
        points = [point for work in works for point in work.group.wanted]
        self._attempts.note(points, attempt)
        return self._again(works, points, attempt.place)

    def avoid(self, key: EngineKey, nodes: Iterable[str]) -> None:
        """Where an engine of the key would not start: others first."""
        for work in self.waiting.taken(key):
            self.waiting.push(replace(work, avoid=work.avoid.union(nodes)))

    def given_up(self, key: EngineKey, attempt: Attempt) -> Arrival:
        """No engine of the key would start: whatever still needs one fails with that reason."""
        resting = [work for _, work in self._resting if work.key == key]
        self._resting = [entry for entry in self._resting if entry[1].key != key]
        points = [p for w in [*self.waiting.taken(key), *resting] for p in w.group.wanted]
        self._attempts.note(points, attempt)
        return Arrival(outcomes=tuple(self._attempts.failed(p) for p in points))

    def _again(self, works: Sequence[Work], points: Sequence[SweepPoint], place: str) -> Arrival:
        over = {p.point_id for p in points if self._attempts.over(p)}
        notes = []
        for work in works:
            left = [p for p in work.group.wanted if p in points and p.point_id not in over]
            if left:
                wait_s = max(self._attempts.wait_s(point) for point in left)
                self._rest(work, left, wait_s)
                notes.append(self._note(left, wait_s, place))
        failed = tuple(self._attempts.failed(p) for p in points if p.point_id in over)
        return Arrival(outcomes=failed, notes=tuple(notes))

    def _rest(self, work: Work, points: Sequence[SweepPoint], wait_s: float) -> None:
        avoid = frozenset().union(*(self._attempts.nodes(point) for point in points))
        share = len(points) / len(work.group.wanted)
        work = replace(
            work, group=only(work.group, points), avoid=avoid, seconds=work.seconds * share
        )
        self._resting.append((self._clock() + wait_s, work))

    def _note(self, points: Sequence[SweepPoint], wait_s: float, place: str) -> str:
        tried = max(self._attempts.count(point) for point in points)
        reason = self._attempts.last(points[0]).reason
        sizes = ", ".join(f"B={p.batch_size} gamma={p.gamma}" for p in points)
        where = f" on {place}" if place else ""
        return f"attempt {tried} of {sizes}{where} failed: {reason}; tried again in {wait_s:.0f} s"


def only(group: Group, points: Sequence[SweepPoint]) -> Group:
    """The group with these of its points still wanted."""
    return replace(
        group,
        points=tuple(p for p in group.points if p in points),
        baseline_is_new=group.baseline_is_new and group.baseline in points,
    )
