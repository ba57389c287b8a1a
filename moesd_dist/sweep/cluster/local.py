"""A Ray cluster on this machine alone, of one node or of several that share it; it ends with this process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.node import Node
from ray._private.parameter import RayParams

from moesd_dist.sweep.cluster.environment import health_environment, token_file

# For every node: at any other address, 127.0.0.2 too, Ray listens on all interfaces. Nodes are told
# apart by their ports.
LOOPBACK = "127.0.0.1"
STORE_BYTES = 200_000_000  # of a further node; what ranks send through Ray is small

_further: list[Node] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalNodes:
    """`cpus` are what each node says it has, more than there are if need be; 0: the machine's."""

    count: int = 1
    cpus: int = 0


ONE_NODE = LocalNodes()


def start_local(nodes: LocalNodes, options: Mapping[str, Any]) -> None:
    """The first node has the machine's GPUs; all are bound to the loopback and ask for a token."""
    _set_environment()
    cpus = nodes.cpus or os.cpu_count() or 1
    with _only_loopback():
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            _node_ip_address=LOOPBACK,
            **options,
        )
        try:
            for _ in range(nodes.count - 1):
                _further.append(_further_node(cpus))
        except BaseException:
            stop_further_nodes()
            ray.shutdown()
            raise


def stop_further_nodes() -> None:
    """Those beside the first, which ends with `ray.shutdown()`."""
    while _further:
        _further.pop().kill_all_processes(check_alive=False, allow_graceful=True, wait=True)


def _further_node(cpus: int) -> Node:
    """In the same session; the kernel ends it if this process dies in whatever way."""
    asked = RayParams(
        gcs_address=ray.get_runtime_context().gcs_address,
        node_ip_address=LOOPBACK,
        num_cpus=cpus,
        num_gpus=0,
        resources={},
        object_store_memory=STORE_BYTES,
        node_manager_port=0,
        min_worker_port=0,
        max_worker_port=0,
        dashboard_agent_listen_port=0,
        include_log_monitor=False,
    )
    return Node(asked, head=False, shutdown_at_exit=True, spawn_reaper=True)


def _set_environment() -> None:
    for name, value in health_environment().items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token_file())
    # Ray took its settings from the environment when it was imported.
    if hasattr(ray, "_raylet") and hasattr(ray._raylet, "Config"):
        ray._raylet.Config.initialize("")


@contextmanager
def _only_loopback() -> Iterator[None]:
    """Ray would put this machine's outward address in place of 127.0.0.1 and listen everywhere."""
    kept = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = kept
