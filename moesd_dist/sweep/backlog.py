"""What the journal has and the tracker has not yet: written by one thread, again after an outage."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice

from moesd_dist.ports import BulkTracker, SharedTracker, Tracker, TrackerUnavailable
from moesd_dist.records import Measurement, Outcome
from moesd_dist.sweep.journal import Journal
from moesd_dist.sweep.statistics import metrics
from moesd_dist.sweep.words import Withdrawal, Word

FIRST_WAIT_S = 1.0  # after a try that failed; doubles with each
LONGEST_WAIT_S = 15.0
HEARTBEAT_S = 30.0
MANY, MOST = 100, 200  # outcomes that a tracker is asked to write at once, where it can
_LAST_CALL_S = 30.0  # for a write that is under way at the end


class Backlog:
    """Keeps the order of words about a point. After an error that is no outage nothing is written any
    more, and the sweep goes on; a takeover by another driver ends it.
    """

    def __init__(self, tracker: Tracker, journal: Journal) -> None:
        self._tracker, self._journal = tracker, journal
        self._words: deque[Word] = deque()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)
        self._stopping = self._hurry = False
        self._broken: BaseException | None = None
        self._taken_over: ValueError | None = None
        self._answered, self._tries = time.monotonic(), 0
        self._beat, self._ours = time.monotonic(), False  # whether the claim is known to hold
        self.reason = ""  # of the last try, if that failed
        self._thread.start()

    @property
    def left(self) -> int:
        return len(self._words)

    def add(self, words: Sequence[Word]) -> None:
        with self._changed:
            self._words.extend(words)
            self._changed.notify_all()

    @property
    def broken(self) -> bool:
        """What is left stays so until the next driver writes it."""
        return self._broken is not None

    def check(self) -> None:
        """ValueError if another driver has taken the sweep over."""
        if self._taken_over is not None:
            raise self._taken_over

    def settle(self, patience_s: float) -> None:
        """Until nothing is left, or there was no answer for `patience_s`; raises what broke."""
        with self._changed:
            began, tries, self._hurry = time.monotonic(), self._tries, True
            self._changed.notify_all()
            while self._words and self._broken is None:
                silent_s = time.monotonic() - max(began, self._answered)
                if self.reason and self._tries > tries and silent_s >= patience_s:
                    break
                self._changed.wait(0.2)
            self._hurry = False
        if self._broken is not None:
            raise self._broken

    def stop(self) -> None:
        """After the write that is under way."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(_LAST_CALL_S)

    def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        while self._wait_for_words():
            try:
                self._write_some()
            except TrackerUnavailable as outage:
                self._ours = False  # another driver may take over meanwhile
                self._note(outage)
                self._pause(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            except BaseException as error:
                self._break(error)
                if self._taken_over is not None:
                    return
            else:
                wait_s = FIRST_WAIT_S

    def _wait_for_words(self) -> bool:
        """Whether to go on."""
        with self._changed:
            while not (self._to_write or self._stopping or self._beat_is_due()):
                self._changed.wait(1.0)
            return not self._stopping

    @property
    def _to_write(self) -> bool:
        return bool(self._words) and self._broken is None

    def _write_some(self) -> None:
        self._renew()
        if not self._to_write:
            return
        words, outcomes = self._many()
        if words and isinstance(self._tracker, BulkTracker):
            found = [_metrics(outcome) for outcome in outcomes]
            done = self._tracker.record_many(outcomes, found)
            self._written([words[place] for place in done])
        else:
            word = self._words[0]
            said = self._journal.said(word)
            if isinstance(said, Withdrawal):
                self._tracker.withdraw(said.point_id, said.why)
            else:
                self._tracker.record(said, _metrics(said))
            self._written([word])

    def _many(self) -> tuple[list[Word], list[Outcome]]:
        """The next outcomes, light and of different points, if there are enough to be worth it."""
        with self._changed:
            waiting = list(islice(self._words, MOST))
        words: dict[str, Word] = {}
        outcomes: list[Outcome] = []
        for word in waiting:
            if word.said is None or isinstance(word.said, Withdrawal) or word.point_id in words:
                break
            words[word.point_id] = word
            outcomes.append(word.said)
        return (list(words.values()), outcomes) if len(words) >= MANY else ([], [])

    def _written(self, words: Sequence[Word]) -> None:
        self._journal.mark_tracked(words, self._tracker.run_id)
        numbers = {word.number for word in words}
        with self._changed:
            kept = [w for w in self._words if w.number not in numbers] if len(words) > 1 else None
            if kept is None:
                self._words.popleft()
            else:
                self._words = deque(kept)
            self._answered, self._tries, self.reason = time.monotonic(), self._tries + 1, ""
            self._changed.notify_all()

    def _renew(self) -> None:
        """Before the first write, before the first after an outage, and now and then."""
        if self._ours and not self._beat_is_due():
            return
        try:
            if isinstance(self._tracker, SharedTracker):
                self._tracker.renew()
        except ValueError as error:
            self._taken_over = error
            raise
        self._beat, self._ours = time.monotonic(), True

    def _beat_is_due(self) -> bool:
        return time.monotonic() - self._beat >= HEARTBEAT_S

    def _break(self, error: BaseException) -> None:
        with self._changed:
            self._broken = self._broken or error
            self.reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            self._beat = time.monotonic()  # the claim is kept up as long as the sweep goes on
            self._changed.notify_all()

    def _note(self, outage: TrackerUnavailable) -> None:
        with self._changed:
            self._tries += 1
            if self._broken is None:
                self.reason = str(outage)
            self._changed.notify_all()

    def _pause(self, seconds: float) -> None:
        """Shorter while somebody waits for the end."""
        until = time.monotonic() + seconds
        with self._changed:
            while not self._stopping and (left := until - time.monotonic()) > 0:
                if self._hurry and seconds - left >= FIRST_WAIT_S:
                    return
                self._changed.wait(min(left, FIRST_WAIT_S))


def _metrics(outcome: Outcome) -> Mapping[str, float]:
    return metrics(outcome) if isinstance(outcome, Measurement) else {}
