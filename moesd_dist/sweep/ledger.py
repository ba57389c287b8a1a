"""What is known of a sweep: every outcome is durable here before anything else is done with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moesd_dist.ports import SharedTracker, Tracker, TrackerUnavailable
from moesd_dist.records import Failed, Infeasible, Measurement, Outcome, SweepPoint
from moesd_dist.sweep.backlog import Backlog
from moesd_dist.sweep.journal import Journal, Withdrawal, Word
from moesd_dist.sweep.statistics import metrics

PATIENCE_S = 120.0


class Ledger:
    """Writes to the journal, and behind it to the tracker; without a journal, to the tracker alone.

    With a journal nobody waits for the tracker before the end, and an outage of it only delays.
    """

    def __init__(
        self, tracker: Tracker, journal: Journal | None = None, patience_s: float = PATIENCE_S
    ) -> None:
        self._tracker, self._journal, self._patience_s = tracker, journal, patience_s
        self._backlog: Backlog | None = None
        self._finished: dict[str, Measurement | Infeasible] | None = None  # None: ask the tracker

    def open(self, sweep_id: str, name: str, points: Sequence[SweepPoint]) -> None:
        """ValueError if another driver runs the sweep, or if one of the stores cannot be written."""
        journal = self._journal
        if journal is None:
            self._tracker.open(sweep_id, name, points)
            return
        journal.open(sweep_id, name, len(points))
        try:
            self._open_tracker(journal, sweep_id, name, points)
            self._replay(journal)
        except TrackerUnavailable as error:
            journal.close()
            raise ValueError(
                f"the tracker answers when a sweep starts; it does not: {error}; see to it, or "
                "choose another tracking.uri"
            ) from error
        except BaseException:
            journal.close()
            raise

    def finished(self) -> Mapping[str, Measurement | Infeasible]:
        """By point id: what an earlier run has measured, here or on another machine."""
        return self._tracker.finished() if self._finished is None else dict(self._finished)

    def record(self, outcomes: Sequence[Outcome]) -> None:
        """Durable when it returns; ValueError if it cannot be."""
        if self._journal is None or self._backlog is None:
            for outcome in outcomes:
                found = metrics(outcome) if isinstance(outcome, Measurement) else {}
                self._tracker.record(outcome, found)
            return
        self._backlog.check()
        self._backlog.add(self._journal.record([o for o in outcomes if self._is_news(o)]))

    def withdraw(self, reasons: Mapping[str, str]) -> None:
        """Finished points, by id, that no longer count and will be measured again."""
        if self._journal is None or self._backlog is None:
            for point_id, why in reasons.items():
                self._tracker.withdraw(point_id, why)
            return
        self._backlog.check()
        if reasons:
            self._backlog.add(self._journal.withdraw(reasons))
        for point_id in reasons:
            self._known.pop(point_id, None)

    def note(self, **values: object) -> None:
        """Kept in the journal, where there is one: attempts, sentinels, what a person was told."""
        if self._journal is not None and self._backlog is not None:
            self._journal.note(**values)

    def settle(self) -> None:
        """Waits until the tracker has everything, or has not answered for `patience_s`."""
        if self._backlog is not None:
            self._backlog.settle(self._patience_s)

    def close(self, status: str) -> None:
        """A tracker that does not answer now is none of the sweep's troubles: see `left_behind`."""
        if self._journal is None or self._backlog is None:
            self._tracker.close(status)
            return
        self._backlog.stop()
        whole = not self._backlog.left
        try:
            self._tracker.close(status if whole else "incomplete")
        except TrackerUnavailable as error:
            self._backlog.reason = str(error)
        finally:
            self._journal.close()

    @property
    def left_behind(self) -> str:
        """What the tracker has not got and how it gets it, in a line for a person; else empty."""
        if self._backlog is None or self._journal is None or not self._backlog.left:
            return ""
        return (
            f"{self._backlog.left} points are safe in the journal {self._path} and not yet in the "
            f"tracker: {self._backlog.reason or 'it was not waited for'}; the same command writes them"
        )

    @property
    def damaged(self) -> int:
        """Lines of the journal that were not what an earlier driver wrote, and were skipped."""
        return self._damaged if self._journal is not None else 0

    @property
    def _known(self) -> dict[str, Measurement | Infeasible]:
        assert self._finished is not None  # with a journal, `open` has read it
        return self._finished

    def _open_tracker(
        self, journal: Journal, sweep_id: str, name: str, points: Sequence[SweepPoint]
    ) -> None:
        self._path, self._damaged = journal.path, journal.damaged
        if isinstance(self._tracker, SharedTracker):
            self._tracker.open(sweep_id, name, points, journal.previous)
        else:
            self._tracker.open(sweep_id, name, points)

    def _replay(self, journal: Journal) -> None:
        """Both stores together are what is known; what the tracker lacks is written to it."""
        left = journal.untracked(self._tracker.run_id)
        own = {k: o for k, o in journal.outcomes().items() if not isinstance(o, Failed)}
        self._finished = own
        if left or not self._is_alone(journal):
            tracked = self._tracker.finished()
            withdrawn, new = journal.withdrawn(), {word.point_id for word in left}
            # What had reached the tracker and is not there now was taken back by somebody else.
            own = {k: o for k, o in own.items() if k in tracked or k in new}
            self._finished = {k: o for k, o in tracked.items() if k not in withdrawn & new} | own
            left = self._missing(journal, left, tracked)
        self._backlog = Backlog(self._tracker, journal)
        self._backlog.add(left)

    def _is_alone(self, journal: Journal) -> bool:
        """Nobody else has written since, so that the tracker has nothing that the journal has not."""
        if not isinstance(self._tracker, SharedTracker):
            return False
        return journal.previous is not None and self._tracker.last_driver == journal.previous

    def _missing(
        self, journal: Journal, left: Sequence[Word], tracked: Mapping[str, Outcome]
    ) -> list[Word]:
        """Without those that the tracker has although the mark of it was lost."""
        unsure = {word.point_id for word in left if isinstance(word.said, Withdrawal)}
        there = [w for w in left if w.point_id in tracked and w.point_id not in unsure]
        if there:
            journal.mark_tracked(there, self._tracker.run_id)
        return [word for word in left if word not in there]

    def _is_news(self, outcome: Outcome) -> bool:
        """A finished point is not recorded again, a failed one is."""
        known = self._known.get(outcome.point.point_id)
        if isinstance(known, Measurement) or (known and isinstance(outcome, Infeasible)):
            return False
        if isinstance(outcome, Measurement | Infeasible):
            self._known[outcome.point.point_id] = outcome
        return True
