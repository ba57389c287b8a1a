"""How an engine's process fails: it dies, or it refuses one call and lives on."""

from __future__ import annotations

import signal


class EngineDied(RuntimeError):  # noqa: N818 - an event, told as one
    """The child is gone with all that it had started; `log` is the tail of what it had written."""

    def __init__(self, reason: str, log: str = "") -> None:
        super().__init__(reason, log)
        self.reason, self.log = reason, log
        if log:
            self.add_note(f"the end of its log:\n{log}")  # a record keeps the printed traceback

    def __str__(self) -> str:
        return self.reason


class EngineRefused(RuntimeError):  # noqa: N818 - an event, told as one
    """A call raised in the child, which lives on; its traceback is in the log."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind, self.message = kind, message

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.kind, " ".join(self.message.split()))))


def ending(code: int | None) -> str:
    """Of a process, from its return code."""
    if code is None or code >= 0:
        return f"exit code {code}"
    hint = ", often for want of memory" if code == -signal.SIGKILL else ""
    return f"killed by {signal.Signals(-code).name}{hint}"
