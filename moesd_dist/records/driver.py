"""Who writes a sweep: one process on one machine, told apart from every other one."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from uuid import uuid4

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")


@cache
def _scope() -> str:
    """Within which a process id means one process: this boot, and in it this PID namespace."""
    try:
        return f"{_BOOT_ID.read_text().strip()}/{_PID_NAMESPACE.readlink()}"
    except OSError:  # not Linux, or hidden from this process
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """`key` is drawn anew by every process, since hosts and process ids come again."""

    key: str = field(default_factory=lambda: uuid4().hex[:12])
    host: str = field(default_factory=platform.node)
    pid: int = field(default_factory=os.getpid)
    scope: str = field(default_factory=_scope)  # of the process id; empty: not known

    def __str__(self) -> str:
        return " ".join(filter(None, (self.key, str(self.pid), self.host, self.scope)))

    @property
    def local(self) -> bool:
        """On this machine, as far as its name tells."""
        return self.host == platform.node()

    @property
    def gone(self) -> bool:
        """Known to have ended: a process id of this machine and namespace that is not in use."""
        if not self.local or not self.scope or self.scope != _scope():
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
    match text.split():
        case [key, pid, host] if pid.isdigit():
            return Driver(key=key, host=host, pid=int(pid), scope="")
        case [key, pid, host, scope] if pid.isdigit():
            return Driver(key=key, host=host, pid=int(pid), scope=scope)
    return None
