"""Who writes a sweep: one process on one machine, told apart from every other one."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from uuid import uuid4


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """`key` is drawn anew by every process, since hosts and process ids come again."""

    key: str = field(default_factory=lambda: uuid4().hex[:12])
    host: str = field(default_factory=platform.node)
    pid: int = field(default_factory=os.getpid)

    def __str__(self) -> str:
        return f"{self.key} {self.pid} {self.host}"

    @property
    def gone(self) -> bool:
        """Known to have ended: a process of this machine that no longer runs."""
        if self.host != platform.node():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # it runs, as somebody else
            return False
        return self.pid == os.getpid()  # an earlier life of this very process


def driver_from(text: str) -> Driver | None:
    """What `str` of a driver wrote; None for anything else."""
    match text.split(" ", 2):
        case [key, pid, host] if pid.isdigit():
            return Driver(key=key, host=host.strip(), pid=int(pid))
    return None
