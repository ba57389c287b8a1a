"""Keeps an engine on chosen cores."""

from __future__ import annotations

import os
from pathlib import Path

from moesd_dist.engines.machine_facts import allowed_cores, cores_of, ranges


def pin(cores: str, *, threads: int) -> None:
    """This process with all its threads, and whatever it starts from now on; empty: as it is."""
    if not cores:
        return
    wanted, allowed = cores_of(cores), allowed_cores()
    if foreign := wanted - allowed:
        raise ValueError(
            f"hardware.pin must name cores of this process, {ranges(allowed)}; got {cores}, of "
            f"which {ranges(foreign)} are not; choose others or leave it away"
        )
    if len(wanted) < threads:
        raise ValueError(
            f"hardware.pin needs a core for each of hardware.threads {threads}; got {cores}; "
            "name more cores or lower hardware.threads"
        )
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), wanted)
        except ProcessLookupError:  # a thread that has ended
            continue
