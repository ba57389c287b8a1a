"""A person or a scheduler asks the sweep to end: at once what waits, in order what runs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stop:
    """Asked for once, the sweep finishes what is being measured; asked for twice, it ends at once."""

    def __init__(self) -> None:
        self.asked_by = ""  # the signal's name; empty: go on
        self.urgent = False  # asked for twice

    def __bool__(self) -> bool:
        return bool(self.asked_by)

    def ask(self, by: str) -> None:
        """The second time raises KeyboardInterrupt."""
        if self.asked_by:
            self.urgent = True
            raise KeyboardInterrupt(by)
        self.asked_by = by


@contextmanager
def listening(stop: Stop) -> Iterator[None]:
    """SIGINT and SIGTERM ask `stop` meanwhile; the handlers from before come back at the end."""

    def handle(number: int, _frame: FrameType | None) -> None:
        stop.ask(signal.Signals(number).name)

    kept: dict[int, Any] = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
