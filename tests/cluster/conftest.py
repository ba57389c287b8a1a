"""A cluster on the loopback and one over separate networks, each started once, with a token."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray._raylet import AuthenticationTokenLoader, Config

from moesd_dist.sweep.cluster.environment import health_environment, token_file
from moesd_dist.tracking.mlflow_runs import connect
from tests.cluster import faulty
from tests.cluster.nodes import Cluster, cluster


@pytest.fixture(scope="package")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What every node, and this process as their driver, is started with."""
    token = token_file(tmp_path_factory.mktemp("token") / "token")
    own = {**health_environment(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    # Workers do not have the tests on their path.
    ray.cloudpickle.register_pickle_by_value(sys.modules[faulty.__name__])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        _forget_token()
        yield own
    _forget_token()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[faulty.__name__])


def _forget_token() -> None:
    """Ray keeps the first token that a process has read."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@pytest.fixture(scope="package")
def here(environment: dict[str, str]) -> Iterator[Cluster]:
    """A head and two nodes on loopback addresses."""
    with cluster(2, environment) as made:
        yield made


@pytest.fixture(scope="package")
def apart(environment: dict[str, str]) -> Iterator[Cluster]:
    """A head and two nodes, each node in a network of its own.

    Kept to the end: after it, a ray.shutdown() in this process takes half a minute.
    """
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with cluster(2, environment, apart=True) as made:
        yield made


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once and copied: MLflow's tables take seconds."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    connect(f"sqlite:///{path}")
    return path
