"""Joins a Ray cluster, or starts one that only this machine can reach, and leaves it again."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import services
from ray.exceptions import AuthenticationError, GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from moesd_dist.sweep.cluster.environment import CUT_LINK_S, seconds_to_notice
from moesd_dist.sweep.cluster.local import (
    ONE_NODE,
    LocalNodes,
    start_local,
    stop_further_nodes,
)

ANSWER_S = 3.0  # for a port to answer; Ray itself would try for minutes
HEAD_S = 20.0  # for the head to tell its settings


def start_ray(
    address: str, *, runtime_env: Mapping[str, Any], local: LocalNodes = ONE_NODE
) -> None:
    """`address` is empty for a cluster of one's own, else auto, HOST:PORT or ray://HOST:PORT."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if runtime_env:
        options["runtime_env"] = dict(runtime_env)
    with _signals_kept():
        if not address:
            start_local(local, options)
            return
        _join(address, options)
    for concern in concerns():
        print(f"moesd-dist: warning: {concern}", file=sys.stderr)


def stop_ray() -> None:
    """Leaves the cluster; one that was started here ends. Harmless where there is none."""
    stop_further_nodes()
    if ray.is_initialized():
        ray.shutdown()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray makes SIGTERM an exit, and prints a stack; a sweep that listens to it goes on listening."""
    heard = (signal.SIGINT, signal.SIGTERM)
    kept = {number: signal.getsignal(number) for number in heard}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in kept.items():
                if handler not in (None, signal.SIG_DFL):
                    signal.signal(number, handler)


def concerns() -> list[str]:
    """What is wrong with the cluster joined, though it works; nothing where it cannot be found out."""
    settings = _settings_of_head()
    if settings is None:
        return []
    found = []
    if (notice_s := seconds_to_notice(settings)) > CUT_LINK_S:
        found.append(
            f"the cluster may take {notice_s:.0f} s to notice a lost node; start its nodes after "
            '`eval "$(python -m jobs.cluster_env)"`'
        )
    if settings.get("RAY_AUTH_MODE") not in ("token", "k8s"):
        found.append(
            "the cluster asks nobody for a token; start its nodes with RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH"
        )
    return found


def _join(address: str, options: Mapping[str, Any]) -> None:
    _check_answers(address)
    with _heard() as heard:
        try:
            ray.init(address=address, **options)
            return
        except (RayError, ConnectionError, RuntimeError, ValueError) as error:
            cause = error
    text = " ".join(str(cause).split())
    if isinstance(cause, AuthenticationError) or "InvalidAuthToken" in f"{text} {''.join(heard)}":
        raise ValueError(
            f"the Ray cluster at cluster.address={address} wants a token that this process lacks; "
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to a file with the one that its nodes "
            "were started with"
        ) from cause
    if "ersion mismatch" in text:
        raise ValueError(
            "a driver has the Ray and the Python of its cluster; at "
            f"cluster.address={address}: {text}; use the environment of its nodes"
        ) from cause
    raise ValueError(
        f"cluster.address={address} answers, but not as a cluster to join from here ({text[:300]}); "
        "run on one of its nodes, by `ray job submit`, or give ray://HOST:10001"
    ) from cause


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What Ray's own threads write to standard error meanwhile: only there it says why it waits."""
    heard: list[str] = []
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield heard
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            heard.append(file.read().decode(errors="replace"))


def _check_answers(address: str) -> None:
    """ValueError if nothing listens there."""
    taken = os.environ.get("RAY_ADDRESS", "") if address == "auto" else ""
    if "://" in taken.removeprefix("ray://"):
        raise ValueError(
            "cluster.address=auto is RAY_ADDRESS, a HOST:PORT or ray://HOST:PORT; got "
            f"RAY_ADDRESS={taken}, which is for `ray job`; unset it, or give cluster.address=HOST:6379"
        )
    try:
        place = address
        if address == "auto":
            place = services.get_ray_address_from_environment("auto", None) or ""
        host, _, port = place.removeprefix("ray://").rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S):
            return
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(
            f"no Ray cluster answers at cluster.address={address}"
            f"{f', of RAY_ADDRESS={taken}' if taken else ''}; start one with "
            "`ray start --head`, or use cluster=local"
        ) from error


def _settings_of_head() -> dict[str, str] | None:
    """The settings that its Ray processes were started with; None if it does not tell in time."""

    def settings() -> dict[str, str]:
        import os

        names = [name for name in os.environ if name.startswith("RAY_health_check_")]
        return {name: os.environ[name] for name in (*names, "RAY_AUTH_MODE") if name in os.environ}

    heads = [n for n in ray.nodes() if n["Alive"] and "node:__internal_head__" in n["Resources"]]
    if not heads:
        return None
    there = NodeAffinitySchedulingStrategy(heads[0]["NodeID"], soft=False)
    asked = ray.remote(settings).options(num_cpus=0, scheduling_strategy=there).remote()
    try:
        return dict(ray.get(asked, timeout=HEAD_S))
    except (GetTimeoutError, RayError):
        ray.cancel(asked, force=True)
        return None
