"""A script in processes of its own: ended in time, all of them, and no shared memory left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[3]
SHARED_MEMORY = Path("/dev/shm")
POLL_S = 0.5


def run(module: str, *arguments: str, deadline_s: float, environment: Mapping[str, str]) -> Any:
    """The JSON in the last line `python -m module` prints; AssertionError if it fails or is late."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    began = time.monotonic()
    on_time = wait(process, deadline_s)
    output, errors = process.communicate()
    assert on_time, f"not done within {deadline_s} s\n{output}\n{errors}"
    assert process.returncode == 0, f"exit code {process.returncode}\n{output}\n{errors}"
    print(f"{module} {arguments}: {time.monotonic() - began:.1f} s")
    return json.loads(output.splitlines()[-1])


def wait(process: subprocess.Popen[str], deadline_s: float) -> bool:
    """True once everybody has closed the pipes; afterwards nothing of the group remains either way.

    What a killed owner had in shared memory stays for ever (160 MB for an engine), so its name is
    looked up while the owner lives.
    """
    end = time.monotonic() + deadline_s
    segments: set[Path] = set()
    try:
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=POLL_S)
                return True
            segments |= shared_memory(process.pid)
        return False
    finally:
        segments |= shared_memory(process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for segment in segments:
            segment.unlink(missing_ok=True)


def shared_memory(group: int) -> set[Path]:
    """The named segments that processes of the group have mapped."""
    found = set()
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            if os.getpgid(pid) == group:
                found |= mapped(Path(f"/proc/{pid}/maps"))
    return found


def mapped(maps: Path) -> set[Path]:
    paths = [line.split(maxsplit=5)[5:] for line in maps.read_text().splitlines()]
    named = [Path(path[0]) for path in paths if path and not path[0].endswith("(deleted)")]
    return {path for path in named if path.parent == SHARED_MEMORY}
