"""What the journal has and the tracker has not yet: written by one thread, again after an outage."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice

from moesd_dist.ports import BulkTracker, SharedTracker, Tracker, TrackerUnavailable
from moesd_dist.records import Measurement, Outcome
from moesd_dist.sweep.journal import Journal, Withdrawal, Word
from moesd_dist.sweep.statistics import metrics

FIRST_WAIT_S = 1.0  # after a try that failed; doubles with each
LONGEST_WAIT_S = 15.0
HEARTBEAT_S = 30.0
MANY, MOST = 100, 200  # outcomes that a tracker is asked to write at once, where it can
_LAST_CALL_S = 30.0  # for a write that is under way at the end


class Backlog:
    """Keeps the order of words about a point; an error that is no outage surfaces in the driver."""

    def __init__(self, tracker: Tracker, journal: Journal) -> None:
        self._tracker, self._journal = tracker, journal
        self._words: deque[Word] = deque()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)
        self._stopping = self._hurry = False
        self._broken: BaseException | None = None
        self._answered, self._tries = time.monotonic(), 0
        self._beat = time.monotonic()
        self.reason = ""  # of the last try, if that failed
        self._thread.start()

    @property
    def left(self) -> int:
        return len(self._words)

    def add(self, words: Sequence[Word]) -> None:
        with self._changed:
            self._words.extend(words)
            self._changed.notify_all()

    def check(self) -> None:
        """Raises what broke in the thread."""
        if self._broken is not None:
            raise self._broken

    def settle(self, patience_s: float) -> None:
        """Until nothing is left, or a fresh try has failed `patience_s` after the last answer."""
        with self._changed:
            tries, self._hurry = self._tries, True
            self._changed.notify_all()
            while self._words and self._broken is None:
                silent_s = time.monotonic() - self._answered
                if self.reason and self._tries > tries and silent_s >= patience_s:
                    break
                self._changed.wait(0.2)
            self._hurry = False
        self.check()

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
                self._note(outage)
                self._pause(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            except BaseException as error:
                with self._changed:
                    self._broken = error
                    self._changed.notify_all()
                return
            else:
                wait_s = FIRST_WAIT_S

    def _wait_for_words(self) -> bool:
        """Whether to go on."""
        with self._changed:
            while not (self._words or self._stopping or self._beat_is_due()):
                self._changed.wait(1.0)
            return not self._stopping

    def _write_some(self) -> None:
        self._renew()
        words, outcomes = self._many()
        if words and isinstance(self._tracker, BulkTracker):
            found = [_metrics(outcome) for outcome in outcomes]
            done = self._tracker.record_many(outcomes, found)
            self._written([words[place] for place in done])
        elif self._words:
            word = self._words[0]
            if isinstance(word.said, Withdrawal):
                self._tracker.withdraw(word.point_id, word.said.why)
            else:
                self._tracker.record(word.said, _metrics(word.said))
            self._written([word])

    def _many(self) -> tuple[list[Word], list[Outcome]]:
        """The next outcomes, of different points, if there are enough to be worth it."""
        with self._changed:
            waiting = list(islice(self._words, MOST))
        words: dict[str, Word] = {}
        outcomes: list[Outcome] = []
        for word in waiting:
            if isinstance(word.said, Withdrawal) or word.point_id in words:
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
        if self._beat_is_due():
            self._beat = time.monotonic()
            if isinstance(self._tracker, SharedTracker):
                self._tracker.renew()

    def _beat_is_due(self) -> bool:
        return time.monotonic() - self._beat >= HEARTBEAT_S

    def _note(self, outage: TrackerUnavailable) -> None:
        with self._changed:
            self._tries += 1
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
