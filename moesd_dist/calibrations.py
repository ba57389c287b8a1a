"""What `jobs.calibrate` measured of clusters, kept where the next run finds it."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from moesd_dist.cpu_cache import NO_LINK_BYTES_PER_S, cache_folder
from moesd_dist.records.calibration import ALL_TO_ALL, Calibration, CollectiveTimes
from moesd_dist.records.serial import from_plain, to_plain
from moesd_dist.theory.devices.device import DeviceFigures
from moesd_dist.theory.expert_parallel.collectives import Link
from moesd_dist.theory.expert_parallel.measured_links import fit_alpha_beta

COMMAND = "python -m jobs.calibrate"


def cache_file(calibration: Calibration) -> Path:
    """One a set of hosts, processor and number of threads; a long list of hosts is shortened."""
    hosts, threads = calibration.hosts, calibration.threads
    key = sha256("\n".join([*hosts, calibration.cpu_model]).encode()).hexdigest()[:8]
    name = hosts[0] if len(hosts) == 1 else f"{hosts[0]}+{len(hosts) - 1}"
    return cache_folder() / f"ranks-{name}-{threads}t-{key}.json"


def write(calibration: Calibration, file: Path) -> Path:
    """Whole or not at all: another process may be reading the last one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(json.dumps(to_plain(calibration), indent=1) + "\n", encoding="utf-8")
    beside.replace(file)
    return file


def read(file: Path) -> Calibration:
    """ValueError if it is not there or is something else."""
    try:
        return from_plain(Calibration, json.loads(file.expanduser().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{file} is no calibration that can be read ({error}); make one: {COMMAND}"
        ) from error


def of_this_host(*, threads: int, cpu_model: str) -> Calibration | None:
    """The newest of this host alone, with as many threads a rank; None where nothing was measured."""
    found = (
        read(file) for file in cache_folder().glob(f"ranks-{platform.node()}-{threads}t-*.json")
    )
    own = [c for c in found if (c.hosts, c.cpu_model) == ((platform.node(),), cpu_model)]
    return max(own, key=lambda calibration: calibration.measured, default=None)


def with_links(figures: DeviceFigures, calibration: Calibration) -> DeviceFigures:
    """Links between ranks as they were measured: inside of a node, and between nodes."""
    inside = link_of(c for c in calibration.collectives if c.nodes == 1)
    between = link_of(c for c in calibration.collectives if c.nodes > 1)
    if inside:
        figures = replace(
            figures, link_bytes_per_s=inside.bytes_per_s, link_latency_s=inside.latency_s
        )
    if between:
        figures = replace(
            figures,
            inter_link_bytes_per_s=between.bytes_per_s,
            inter_link_latency_s=between.latency_s,
        )
    return figures


def link_of(times: Iterable[CollectiveTimes]) -> Link | None:
    """Latency and rate of the all-to-all over the fewest ranks; None where none follows such a law."""
    timed = [c for c in times if c.collective == ALL_TO_ALL]
    if not timed:
        return None
    fewest = min(timed, key=lambda c: c.ranks)
    link = fit_alpha_beta(fewest.row_bytes, fewest.seconds)
    return link if link.latency_s > 0.0 and link.bytes_per_s < NO_LINK_BYTES_PER_S else None
