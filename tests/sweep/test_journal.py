"""The journal loses nothing that was durable, whatever ends its driver."""

from __future__ import annotations

import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from moesd_dist.records import Failed, Infeasible, Measurement, Outcome, Repeat, SweepPoint
from moesd_dist.records.driver import Driver, driver_from
from moesd_dist.sweep.append_file import AppendFile
from moesd_dist.sweep.journal import Journal
from moesd_dist.sweep.words import Withdrawal

MakePoint = Callable[..., SweepPoint]


@pytest.fixture
def outcomes(base: MakePoint) -> list[Outcome]:
    return [Infeasible(point=base(batch_size=b), reason=f"number {b}") for b in range(1, 6)]


def opened(folder: Path, sweep_id: str = "abc", points: int = 5) -> Journal:
    journal = Journal(folder)
    journal.open(sweep_id, "a sweep", points)
    return journal


def reread(folder: Path) -> dict[str, Outcome]:
    journal = opened(folder)
    found = journal.history.outcomes()
    journal.close()
    return found


def by_id(outcomes: list[Outcome]) -> dict[str, Outcome]:
    return {outcome.point.point_id: outcome for outcome in outcomes}


def test_what_was_recorded_is_read_back(tmp_path: Path, outcomes: list[Outcome]) -> None:
    journal = opened(tmp_path)
    journal.record(outcomes[:3])
    journal.record(outcomes[3:])
    journal.close()
    assert reread(tmp_path) == by_id(outcomes)


def test_the_last_word_about_a_point_counts(tmp_path: Path, base: MakePoint) -> None:
    first, second = (Infeasible(point=base(), reason=reason) for reason in ("first", "second"))
    failed = Failed(point=base(batch_size=2), reason="broke")
    journal = opened(tmp_path)
    journal.record([first, failed])
    journal.withdraw({first.point.point_id: "a drift"})
    journal.close()
    assert reread(tmp_path) == by_id([failed])
    journal = opened(tmp_path)
    assert journal.history.withdrawn() == {first.point.point_id}
    journal.record([second])
    journal.close()
    assert reread(tmp_path) == by_id([second, failed])


def test_a_mark_is_of_one_word_and_of_one_tracker(tmp_path: Path, outcomes: list[Outcome]) -> None:
    journal = opened(tmp_path)
    words = journal.record(outcomes[:2])
    (withdrawal,) = journal.withdraw({outcomes[0].point.point_id: "a drift"})
    journal.mark_tracked(words, "run 1")  # later than the withdrawal, which it does not mean
    journal.close()
    journal = opened(tmp_path)
    assert journal.history.untracked("run 1") == [withdrawal]
    assert isinstance(withdrawal.said, Withdrawal)
    assert journal.history.untracked("run 2") == [*words, withdrawal]
    journal.close()


def test_a_file_cut_at_any_byte_keeps_every_whole_line(
    tmp_path: Path, outcomes: list[Outcome]
) -> None:
    journal = opened(tmp_path)
    path = journal.path
    journal.record(outcomes[:3])
    whole = path.read_bytes().rstrip(b"\0")
    journal.record(outcomes[3:4])
    journal.close()
    data = path.read_bytes()
    for size in range(len(whole) - 50, len(data) + 1):
        path.write_bytes(data[:size])
        kept = data[:size].count(b"\n") - 1  # the header is one line
        journal = opened(tmp_path)
        found = journal.history.outcomes()
        assert (found, journal.damaged) == (by_id(outcomes[:kept]), 0)
        if size % 50 == 0:  # each takes some waits for the disk
            journal.record(outcomes[4:])
            journal.close()
            assert reread(tmp_path) == by_id([*outcomes[:kept], outcomes[4]])
        journal.close()


def test_a_damaged_line_is_counted_and_skipped(tmp_path: Path, outcomes: list[Outcome]) -> None:
    journal = opened(tmp_path)
    journal.record(outcomes)
    journal.close()
    lines = journal_file(tmp_path).read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"number", b"cipher")
    lines[4] = lines[4][:40] + b"\0" * 60 + lines[4][100:]
    journal_file(tmp_path).write_bytes(b"".join(lines))
    journal = opened(tmp_path)
    assert journal.damaged == 2
    assert journal.history.outcomes() == by_id([outcomes[0], outcomes[2], outcomes[4]])
    journal.close()


def test_a_second_driver_is_told_who_holds_the_journal(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    with pytest.raises(ValueError, match=rf"process {os.getpid()} on \S+ .*sweep\.name") as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)
    opened(tmp_path, "another sweep").close()
    journal.close()
    opened(tmp_path).close()


def test_the_next_driver_knows_which_one_has_ended(tmp_path: Path) -> None:
    first = Driver()
    journal = Journal(tmp_path, first)
    journal.open("abc", "a sweep", 1)
    assert journal.previous is None
    journal.close()
    journal = opened(tmp_path)
    assert journal.previous == first == driver_from(str(first))
    journal.close()


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file.*tracking\.journal=PATH") as caught:
        opened(tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_no_room_for_the_sweep_is_said_before_anything_is_spent(tmp_path: Path) -> None:
    """The limit on a file's size stands for a disk that is full."""
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from moesd_dist.sweep.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))\n"
        "Journal(Path(sys.argv[1])).open('abc', 'a sweep', 10_000)\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    for limit, told in ((1 << 20, "at least 4 MiB"), (8 << 20, "needs 78 MiB for 10000 points")):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), str(limit)], capture_output=True, text=True
        )
        assert told in done.stderr
        assert "make room" in done.stderr


def test_space_is_reserved_ahead_and_given_back(tmp_path: Path, outcomes: list[Outcome]) -> None:
    journal = opened(tmp_path, points=1000)
    journal.record(outcomes)
    assert journal.path.stat().st_size >= 1000 * 8192
    journal.close()
    assert journal_file(tmp_path).stat().st_size < 10_000


def test_a_driver_killed_at_any_moment_loses_nothing_that_it_had_reported(tmp_path: Path) -> None:
    """It prints a number when the record of that number is durable."""
    code = (
        "import sys; from pathlib import Path\n"
        "from moesd_dist.records import *\n"
        "from moesd_dist.sweep.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1])); journal.open('abc', 'a sweep', 5)\n"
        "spec = ModelSpec(name='m', source=ModelSource.shape)\n"
        "load = WorkloadSpec(name='w', prompt_tokens_min=1, prompt_tokens_max=1, output_tokens=1)\n"
        "for n in range(1 + int(sys.argv[2]), 10**6):\n"
        "    point = SweepPoint(engine='e', target=spec, workload=load, batch_size=n, gamma=0)\n"
        "    journal.record([Infeasible(point=point, reason='x' * (n % 5000))])\n"
        "    print(n, flush=True)\n"
    )
    known = 0
    for turn in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(known)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        reported = [int(child.stdout.readline()) for _ in range(20 + 17 * turn)]
        child.send_signal(signal.SIGKILL)
        reported += [int(line) for line in child.stdout]
        child.wait()
        journal = opened(tmp_path)
        found = {outcome.point.batch_size for outcome in journal.history.outcomes().values()}
        assert journal.damaged == 0
        journal.close()
        known = max(found)
        assert found == set(range(1, known + 1))
        assert known - reported[-1] in (0, 1)  # durable, and perhaps not yet reported


def journal_file(folder: Path) -> Path:
    return folder / "abc.jsonl"


def test_a_journal_is_whole_if_it_was_there_and_nothing_of_it_is_damaged(
    tmp_path: Path, outcomes: list[Outcome]
) -> None:
    journal = opened(tmp_path)
    assert not journal.whole
    journal.record(outcomes)
    journal.close()
    journal = opened(tmp_path)
    assert journal.whole
    journal.close()
    written = journal_file(tmp_path).read_bytes()
    for damaged in (written.replace(b"number 2", b"number 9"), b"nothing\n", b""):
        journal_file(tmp_path).write_bytes(damaged)
        journal = opened(tmp_path)
        assert not journal.whole
        journal.close()
    journal_file(tmp_path).unlink()  # the lock file beside it stays
    journal = opened(tmp_path)
    assert not journal.whole
    assert journal.previous is not None
    journal.close()


def test_what_was_said_after_a_word_without_a_mark_counts_as_untracked(
    tmp_path: Path, outcomes: list[Outcome]
) -> None:
    journal = opened(tmp_path)
    first, other = journal.record(outcomes[:2])
    (withdrawal,) = journal.withdraw({outcomes[0].point.point_id: "a drift"})
    (second,) = journal.record(outcomes[:1])
    journal.mark_tracked([first, other, second], "run 1")  # the withdrawal's is lost
    journal.close()
    journal = opened(tmp_path)
    assert journal.history.untracked("run 1") == [withdrawal, second]
    assert journal.history.words_of([first.point_id]) == [withdrawal, second]
    assert journal.history.words_of([other.point_id]) == [other]
    assert journal.history.superseded() == {first.point_id: [outcomes[0]]}
    journal.close()


def test_the_number_of_a_damaged_word_is_not_given_again(
    tmp_path: Path, outcomes: list[Outcome]
) -> None:
    journal = opened(tmp_path)
    journal.mark_tracked(journal.record(outcomes[:3]), "run 1")
    journal.close()
    path = journal_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"number 3", b"number 9"))
    journal = opened(tmp_path)
    (word,) = journal.record(outcomes[2:3])
    journal.close()
    journal = opened(tmp_path)
    assert journal.history.untracked("run 1") == [word]
    journal.close()


def test_a_journal_of_a_later_version_is_one_line_and_leaves_nothing_open(tmp_path: Path) -> None:
    file = AppendFile(journal_file(tmp_path), Driver())
    file.append(['{"kind":"header","format":2,"sweep_id":"abc","name":"a sweep"}'])
    file.close()
    size, files = journal_file(tmp_path).stat().st_size, os.listdir("/proc/self/fd")
    for read in (lambda: Journal.peek(tmp_path, "abc"), lambda: opened(tmp_path)):
        with pytest.raises(ValueError, match=r"abc\.jsonl is of 2.*later version") as caught:
            read()
        assert "\n" not in str(caught.value)
        del caught  # its traceback holds the reader
    assert (journal_file(tmp_path).stat().st_size, os.listdir("/proc/self/fd")) == (size, files)


def test_a_file_that_is_closed_takes_nothing_more(tmp_path: Path) -> None:
    file = AppendFile(tmp_path / "file", Driver())
    file.close()
    file.close()
    with (tmp_path / "another").open("w+") as other:  # perhaps under the same number
        with pytest.raises(OSError, match="descriptor"):
            file.append(["a line"])
        assert other.read() == ""


@pytest.mark.parametrize(
    ("holder", "age_s", "free"),
    [
        pytest.param("key 7 elsewhere boot/pid:[1]\n", 5, False, id="it wrote a moment ago"),
        pytest.param("key 7 elsewhere\n", 5, False, id="likewise, as an earlier version told"),
        pytest.param("key 7 elsewhere boot/pid:[1]\n", 100, True, id="it is silent"),
        pytest.param("key 7 elsewhere boot/pid:[1]\nclosed\n", 5, True, id="it has closed"),
        pytest.param(f"key 7 {platform.node()} boot/pid:[1]\n", 5, True, id="this machine"),
    ],
)
def test_a_lock_of_another_machine_is_not_trusted_alone(
    tmp_path: Path, holder: str, age_s: float, free: bool
) -> None:
    opened(tmp_path).close()
    journal_file(tmp_path).with_suffix(".lock").write_text(holder)
    then = time.time() - age_s
    os.utime(journal_file(tmp_path), (then, then))
    with nullcontext() if free else pytest.raises(ValueError, match=r"7 on elsewhere .* s ago"):
        opened(tmp_path).close()


def test_room_is_made_for_records_of_the_size_that_is_seen(tmp_path: Path, base: MakePoint) -> None:
    big = [Infeasible(point=base(batch_size=b), reason="x" * 40_000) for b in (1, 2)]
    journal = opened(tmp_path, points=1000)
    journal.record(big[:1])
    assert journal.path.stat().st_size > 1000 * 40_000
    journal.close()
    journal = opened(tmp_path, points=1000)  # and by those of earlier drivers, at once
    assert journal.path.stat().st_size > 1000 * 40_000
    journal.close()


def test_heavy_records_stay_on_the_disk(tmp_path: Path, base: MakePoint) -> None:
    repeat = Repeat(
        seconds=1.0,
        rounds=1,
        tokens=1,
        drafted=0,
        accepted=0,
        sequence_rounds=1,
        draft_s=0.0,
        target_s=1.0,
        reject_s=0.0,
        tokens_per_forward=1,
        median_target_s=1.0,
        median_draft_s=0.0,
    )
    loaded = replace(repeat, expert_load=((12345,) * 128,) * 48)
    heavy = Measurement(point=base(), repeats=(loaded,) * 3, baseline=(loaded,) * 3)
    light = replace(heavy, repeats=(repeat,) * 3, baseline=(repeat,) * 3)
    journal = opened(tmp_path)
    (word,) = journal.record([heavy])
    assert (word.said, journal.said(word)) == (None, heavy)
    journal.close()
    journal = opened(tmp_path)
    assert journal.history.untracked("run 1") == [word]
    assert journal.history.outcomes() == {word.point_id: light}
    assert journal.said(word) == heavy
    journal.close()
