"""What is known of a sweep: every outcome is durable here before anything else is done with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moesd_dist.ports import SharedTracker, Tracker, TrackerUnavailable
from moesd_dist.records import Failed, Infeasible, Measurement, Outcome, SweepPoint
from moesd_dist.records.slim import without_expert_load
from moesd_dist.sweep.backlog import Backlog
from moesd_dist.sweep.journal import Journal
from moesd_dist.sweep.replay import Replay, counted, replay
from moesd_dist.sweep.statistics import metrics
from moesd_dist.sweep.words import Withdrawal

PATIENCE_S = 120.0
FITS_NOW = "it was measured later"


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
        self._told = False

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
        news = self._news(outcomes)
        if self._journal is None or self._backlog is None:
            for said in news:
                self._write_through(said)
            return
        self._backlog.add(self._journal.say(news))
        self._keep(news)
        self._backlog.check()

    def withdraw(self, reasons: Mapping[str, str]) -> None:
        """Finished points, by id, that no longer count and will be measured again."""
        if self._journal is None or self._backlog is None:
            for point_id, why in reasons.items():
                self._tracker.withdraw(point_id, why)
            return
        said = [Withdrawal(point_id=k, why=why) for k, why in reasons.items()]
        self._backlog.add(self._journal.say(said))
        self._keep(said)
        self._backlog.check()

    def note(self, **values: object) -> None:
        """Kept in the journal, where there is one: attempts, sentinels, what a person was told."""
        if self._journal is not None and self._backlog is not None:
            self._journal.note(**values)

    def settle(self) -> None:
        """Waits until the tracker has everything, or has not answered for `patience_s`.

        What broke in the tracker is raised here: before, the journal takes what is measured.
        """
        if self._backlog is None:
            return
        try:
            self._backlog.settle(self._patience_s)
        except KeyboardInterrupt:  # somebody has no more patience; the next driver writes the rest
            self._backlog.reason = self._backlog.reason or "it was interrupted"

    def trouble(self) -> str:
        """Once, in a line for a person: that nothing reaches the tracker any more; else empty."""
        if self._told or self._backlog is None or not self._backlog.broken:
            return ""
        self._told = True
        return self.left_behind

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

    def _write_through(self, said: Outcome | Withdrawal) -> None:
        if isinstance(said, Withdrawal):
            self._tracker.withdraw(said.point_id, said.why)
        else:
            self._tracker.record(said, metrics(said) if isinstance(said, Measurement) else {})

    def _keep(self, news: Sequence[Outcome | Withdrawal]) -> None:
        assert self._finished is not None  # with a journal, `open` has read it
        for said in news:
            if isinstance(said, Withdrawal):
                self._finished.pop(said.point_id, None)
            elif not isinstance(said, Failed):
                self._finished[said.point.point_id] = without_expert_load(said)

    def _open_tracker(
        self, journal: Journal, sweep_id: str, name: str, points: Sequence[SweepPoint]
    ) -> None:
        self._path, self._damaged = journal.path, journal.damaged
        if isinstance(self._tracker, SharedTracker):
            previous = journal.previous
            # A lock may hold on one machine only: of a driver elsewhere it proves nothing.
            ended = previous if previous and previous.local else None
            self._tracker.open(sweep_id, name, points, ended)
        else:
            self._tracker.open(sweep_id, name, points)

    def _replay(self, journal: Journal) -> None:
        """Both stores together are what is known; what the tracker lacks is written to it."""
        tracker, history = self._tracker, journal.history
        left = history.untracked(tracker.run_id)
        if self._is_alone(journal) and not left:
            found = Replay(finished=counted(history))
            tracker.trust(found.finished)
        else:
            found = replay(history, left, tracker.finished(), tracker.withdrawn())
        journal.forget()
        if found.there:
            journal.mark_tracked(found.there, tracker.run_id)
        self._finished = found.finished
        self._backlog = Backlog(tracker, journal)
        self._backlog.add(found.words)

    def _is_alone(self, journal: Journal) -> bool:
        """Nobody else has written since, so that the tracker has nothing that the journal has not."""
        if not isinstance(self._tracker, SharedTracker) or not journal.whole:
            return False
        return journal.previous is not None and self._tracker.last_driver == journal.previous

    def _news(self, outcomes: Sequence[Outcome]) -> list[Outcome | Withdrawal]:
        """A finished point is not recorded again, a failed one is; what fits now is no more void."""
        known = self._tracker.finished() if self._finished is None else self._finished
        latest: dict[str, Outcome] = {}
        news: list[Outcome | Withdrawal] = []
        for outcome in outcomes:
            point_id = outcome.point.point_id
            before = latest.get(point_id) or known.get(point_id)
            if isinstance(before, Measurement) or (before and isinstance(outcome, Infeasible)):
                continue
            if before is not None and isinstance(outcome, Measurement):
                news.append(Withdrawal(point_id=point_id, why=FITS_NOW))
            if not isinstance(outcome, Failed):
                latest[point_id] = outcome
            news.append(outcome)
        return news
