"""What is known at the start of a driver: the journal and the tracker, each of which may lack something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from moesd_dist.records import Failed, Infeasible, Measurement
from moesd_dist.sweep.history import History
from moesd_dist.sweep.words import Withdrawal, Word

Finished = Measurement | Infeasible


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """`words` are to be written to the tracker; `there` reached it, only the mark of that is lost."""

    finished: dict[str, Finished]
    words: tuple[Word, ...] = ()
    there: tuple[Word, ...] = ()


def counted(history: History) -> dict[str, Finished]:
    """What the journal says alone."""
    return {k: o for k, o in history.outcomes().items() if not isinstance(o, Failed)}


def replay(
    history: History,
    left: Sequence[Word],
    tracked: Mapping[str, Finished],
    withdrawn: Set[str],
) -> Replay:
    """`left` may not have reached the tracker, which has `tracked`.

    `withdrawn` are points of which the tracker says that they were taken back, here or elsewhere.

    A point that had reached the tracker, is not there now and was not taken back was lost by it: a
    backup was restored, or the power failed. One that another driver has measured since counts as
    the tracker has it.
    """
    own, there = counted(history), _there(left, tracked)
    new = {word.point_id for word in left}
    lost = own.keys() - tracked.keys() - new - withdrawn
    lost |= _revived(history, tracked, own) - new
    ours = (new | lost) - {word.point_id for word in there}
    void = ours & history.withdrawn()
    finished = {k: o for k, o in tracked.items() if k not in void}
    finished |= {k: o for k, o in own.items() if k in ours}
    numbers = {word.number for word in there}
    again = [word for word in left if word.number not in numbers] + history.words_of(lost)
    return Replay(
        finished=finished,
        words=tuple(sorted(again, key=lambda word: word.number)),
        there=tuple(there),
    )


def _there(left: Sequence[Word], tracked: Mapping[str, Finished]) -> list[Word]:
    unsure = {word.point_id for word in left if isinstance(word.said, Withdrawal)}
    unsure |= {word.point_id for word in left if _fits_now(word, tracked.get(word.point_id))}
    return [w for w in left if w.point_id in tracked and w.point_id not in unsure]


def _fits_now(word: Word, tracked: Finished | None) -> bool:
    """Heavy words are measurements."""
    measured = word.said is None or isinstance(word.said, Measurement)
    return measured and isinstance(tracked, Infeasible)


def _revived(
    history: History, tracked: Mapping[str, Finished], own: Mapping[str, Finished]
) -> set[str]:
    """Points of which the tracker has what had been taken back here: it has lost the withdrawal."""
    return {
        point_id
        for point_id, old in history.superseded().items()
        if point_id in tracked
        and tracked[point_id] in old
        and tracked[point_id] != own.get(point_id)
    }
