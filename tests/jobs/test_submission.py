"""Joining a running cluster, and the same sweep as a Ray job on it, with real Ray processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest

from jobs.sweep import home
from moesd_dist.sweep.cluster.environment import health_environment
from tests.jobs.own_cluster import own_cluster, raylet_of, wait_for

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
PREDICT = ("engine=analytic", "sd=synthetic", "hardware=H200", "cluster=existing")
MANY = (*PREDICT, f"sweep.batch_size={[*range(1, 151)]}".replace(" ", ""), "sweep.gamma=[1]")
JOIN = """
import sys
import ray
from moesd_dist.sweep.cluster.start import start_ray
from moesd_dist.sweep.cluster.wheels import runtime_env
try:
    start_ray(sys.argv[1], runtime_env=runtime_env(sys.argv[2], {}))
except ValueError as error:
    raise SystemExit(f"refused: {error}")
print(f"joined {sum(node['Alive'] for node in ray.nodes())}", flush=True)
"""
ASK_WHEEL = """
@ray.remote
def ask():
    import importlib.metadata, shipped
    return shipped.WORD, importlib.metadata.version("shipped")
print(ray.get(ask.remote()))
"""
WATCH = """
import time
print("alive", flush=True)
sys.stdin.readline()
began = time.monotonic()
while sum(node["Alive"] for node in ray.nodes()) > 1:
    time.sleep(0.02)
print(f"noticed {time.monotonic() - began}")
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with own_cluster(tmp_path_factory.mktemp("cluster")) as running:
        running.start_head()
        assert running.answers(within_s=60)
        yield running


def run(cluster, program, address, *, wheels="", **environment):
    return subprocess.run(
        [sys.executable, "-c", JOIN + program, address, str(wheels)],
        env=cluster.environment | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_a_cluster_with_our_settings_is_joined_without_a_warning(cluster):
    done = run(cluster, "", cluster.address)
    assert done.stdout == "joined 1\n", done.stderr
    assert "warning" not in done.stderr


@pytest.mark.parametrize(
    ("address", "environment", "message"),
    [
        pytest.param(
            "127.0.0.2:1", {}, "no Ray cluster answers at cluster.address=127.0.0.2:1;", id="nobody"
        ),
        pytest.param(
            "auto",
            {"RAY_ADDRESS": "http://127.0.0.1:8265"},
            "got RAY_ADDRESS=http://127.0.0.1:8265, which is for `ray job`",
            id="the address of the job service",
        ),
        pytest.param(
            "auto",
            {"RAY_ADDRESS": "127.0.0.2:1"},
            "answers at cluster.address=auto, of RAY_ADDRESS=127.0.0.2:1;",
            id="nobody at the address in the environment",
        ),
        pytest.param("nowhere", {}, "no Ray cluster answers at cluster.address=nowhere", id="what"),
        pytest.param(
            "",
            {"RAY_AUTH_TOKEN": "wrong", "RAY_NUM_REDIS_GET_RETRIES": "2"},
            "wants a token that",
            id="wrong token",
        ),
        pytest.param(
            "", {"RAY_AUTH_TOKEN_PATH": "", "HOME": "/nowhere"}, "wants a token that", id="no token"
        ),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_one_line(cluster, address, environment, message):
    done = run(cluster, "", address or cluster.address, **environment)
    (line,) = done.stderr.splitlines()
    assert line.startswith("refused: ")
    assert message in line


def test_workers_import_what_a_wheel_holds(cluster, tmp_path):
    with zipfile.ZipFile(tmp_path / "shipped-1.5-py3-none-any.whl", "w") as wheel:
        wheel.writestr("shipped/__init__.py", "WORD = 'carried'\n")
        wheel.writestr("shipped-1.5.dist-info/METADATA", "Metadata-Version: 2.1\nName: shipped\nVersion: 1.5\n")  # fmt: skip
    done = run(cluster, ASK_WHEEL, cluster.address, wheels=tmp_path)
    assert "('carried', '1.5')" in done.stdout, done.stderr


def test_a_node_that_is_killed_is_noticed_within_5_s(cluster):
    node = cluster.start_node("127.0.0.3")
    assert wait_for(lambda: "Ray runtime started" in cluster.said(node), within_s=60)
    with subprocess.Popen(
        [sys.executable, "-c", JOIN + WATCH, cluster.address, ""],
        env=cluster.environment | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as watch:
        assert watch.stdout.readline() == "joined 2\n"
        watch.stdout.readline()
        time.sleep(2.5)  # a node is first checked after 2 s
        raylet_of(node).send_signal(signal.SIGKILL)
        said, _ = watch.communicate("\n", timeout=60)
    (noticed_s,) = (
        float(line.split()[1]) for line in said.splitlines() if line.startswith("noticed")
    )
    print(f"a killed raylet is noticed after {noticed_s:.2f} s")
    assert noticed_s < 5


def test_a_job_that_goes_wrong_is_failed_and_says_why(cluster, tmp_path):
    assert cluster.job("third", [*PREDICT, "sweep.repeats=0"], home=tmp_path) == "FAILED"
    assert "sweep.repeats must be at least 1, got 0" in cluster.log_of("third")


def test_a_job_that_is_stopped_ends_in_order_and_is_taken_up_again(cluster, tmp_path):
    cluster.submit("first", MANY, home=tmp_path / "home")
    begun = wait_for(lambda: "[2/300]" in cluster.log_of("first"), within_s=90)
    assert begun, cluster.log_of("first")
    cluster.stop("first")
    assert cluster.ended("first") == "STOPPED"
    log = cluster.log_of("first")
    assert "moesd-dist: stopped by SIGTERM" in log, log
    assert "the same command continues where it stopped" in log
    done = max(int(line.split("/")[0][1:]) for line in log.splitlines() if line.startswith("["))
    assert 2 <= done < 300
    assert cluster.job("second", MANY, home=tmp_path / "home") == "SUCCEEDED"
    log = cluster.log_of("second")
    assert f"{done} of 300 points were finished by an earlier run" in log
    assert (tmp_path / "home" / "mlflow.db").exists()


PRETEND = """
from ray.experimental.internal_kv import _internal_kv_put
told = b'{"ray_version": "2.51.0", "python_version": "3.10.4", "ray_init_cluster": false}'
_internal_kv_put(b"CLUSTER_METADATA", told, overwrite=True, namespace=b"cluster")
"""


def test_a_cluster_of_other_versions_is_refused_with_both(cluster):
    """The last one on this cluster: it then says that it is an older one."""
    assert run(cluster, PRETEND, cluster.address).returncode == 0
    (line,) = run(cluster, "", cluster.address).stderr.splitlines()
    assert line.startswith("refused: a driver has the Ray and the Python of its cluster")
    assert "Ray: 2.51.0 Python: 3.10.4" in line


LOCAL = """
import os
names = [n for n in os.environ if n.startswith(("RAY_health", "RAY_worker"))]
print({name: os.environ[name] for name in names})
print(os.environ["RAY_AUTH_MODE"], oct(os.stat(os.environ["RAY_AUTH_TOKEN_PATH"]).st_mode)[-3:])
print(ray.nodes()[0]["NodeManagerAddress"], flush=True)
sys.stdin.readline()
"""


def test_a_cluster_of_ones_own_listens_on_the_loopback_alone_and_wants_its_token(tmp_path):
    given = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    with subprocess.Popen(
        [sys.executable, "-c", JOIN + LOCAL, "", ""],
        env=given | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:
        assert driver.stdout.readline() == "joined 1\n"
        assert driver.stdout.readline() == f"{health_environment()}\n"
        assert driver.stdout.readline() == "token 600\n"
        assert driver.stdout.readline() == "127.0.0.1\n"
        family = [psutil.Process(driver.pid)]
        family += family[0].children(recursive=True)
        open_to = {
            connection.laddr.ip.removeprefix("::ffff:")
            for process in family
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        driver.communicate("\n", timeout=60)
    assert open_to == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("given", "here", "expected"),
    [
        pytest.param("", "/work", "/work", id="where one stands"),
        pytest.param("/shared", "/tmp/ray/s/runtime_resources/w", "/shared", id="a job"),
    ],
)
def test_relative_paths_lead_to(given, here, expected):
    assert home({"MOESD_HOME": given}, Path(here)) == Path(expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(
            "", "outside of its own folder, which Ray deletes; got /t/runtime_", id="none"
        ),
        pytest.param("results", "MOESD_HOME is an absolute path; got 'results'", id="relative"),
    ],
)
def test_a_job_whose_results_would_be_deleted_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        home({"MOESD_HOME": given}, Path("/t/runtime_resources/working_dir_files/x"))


def test_the_refusal_names_an_option_that_a_shell_and_ray_can_read():
    with pytest.raises(ValueError, match="submit with") as refused:
        home({}, Path("/t/runtime_resources/x"))
    option = str(refused.value).rpartition("--runtime-env-json ")[2].strip("'")
    assert json.loads(option) == {"env_vars": {"MOESD_HOME": "/a/folder/that/stays"}}
