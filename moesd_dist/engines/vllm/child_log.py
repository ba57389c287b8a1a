"""What a child process's log says about its end: the tail, and the most telling line of it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

_LINES, _BYTES = 200, 64 * 1024  # of a tail
_SEARCHED = 2 * 1024 * 1024  # bytes: eight workers' tracebacks may follow the one that tells
_WIDTH = 400  # of a telling line: some errors print a whole configuration

# What stands before the text of a line: "(EngineCore pid=7) ERROR 11-20 09:30:00 [core.py:9] ", "[rank0]: ".
_PREFIX = re.compile(
    r"^(?:\([^()]*\bpid=\d+[^()]*\) ?|\[rank\d+\]: ?"
    r"|[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?)+"
)
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_ERROR = re.compile(
    r"^(?:(?:[A-Za-z_][\w.]*)?(?:Error|Exception|Exit|Interrupt)(?::|$)"
    r"|Fatal Python error: |\s*what\(\):  |!+ Segfault encountered|.*\bdied unexpectedly\b)"
)
# Says only that something else broke, in a line above or in another process.
_FOLLOWER = re.compile(
    r"[Ss]ee (?:the )?(?:root cause|stack ?trace|(?:error|log)s? (?:above|below))"
    r"|^(?:[\w.]*\.)?(?:EngineDeadError|EngineGenerateError|BrokenPipeError|ConnectionResetError"
    r"|EOFError|KeyboardInterrupt|SystemExit|CancelledError)\b"
)
_VALIDATION = re.compile(r"\d+ validation errors? for ")  # pydantic's reason is on the next line


class ChildLog:
    """The part of a log file written from now on; what earlier runs left in it is passed over."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self.path = path
        self._start = self._call = self._answer = path.stat().st_size

    def begin_call(self) -> None:
        """What an earlier call had logged and survived explains nothing; what came since it may."""
        self._call = self._answer

    def end_call(self) -> None:
        self._answer = self.path.stat().st_size

    def tail(self) -> str:
        return "\n".join(self._since(self._start, _BYTES).splitlines()[-_LINES:])

    def of_call(self) -> str:
        return self._since(self._call, _SEARCHED)

    def _since(self, start: int, most: int) -> str:
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - most))
            return file.read().decode(errors="replace")


def telling_line(log: str) -> str:
    """The last error that names a cause, else the last error; empty if there is none."""
    lines = _texts(log)
    errors = [place for place, line in enumerate(lines) if _ERROR.match(line)]
    causes = [place for place in errors if not _FOLLOWER.search(lines[place])]
    return _whole(lines, (causes or errors)[-1]) if errors else ""


def last_line(log: str) -> str:
    """What it was doing last."""
    written = [line for line in _texts(log) if line.strip()]
    return _shortened(written[-1]) if written else ""


def _texts(log: str) -> list[str]:
    return [_PREFIX.sub("", _COLOUR.sub("", line)) for line in log.splitlines()]


def _whole(lines: Sequence[str], place: int) -> str:
    line = lines[place]
    if _VALIDATION.search(line):
        after = [following.partition(" [type=")[0] for following in lines[place + 1 : place + 4]]
        reason = next((at for at, text in enumerate(after) if text.startswith("  ")), len(after))
        line = ": ".join([line, *map(str.strip, after[: reason + 1])])  # the field's name between
    return _shortened(line)


def _shortened(line: str) -> str:
    text = " ".join(line.split())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."
