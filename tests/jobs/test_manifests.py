"""The manifest and the Slurm script say what the library says, and the script runs a sweep."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from moesd_dist import config, specs
from moesd_dist.__main__ import CONF
from moesd_dist.sweep.cluster.environment import health_environment

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "jobs" / "slurm" / "sweep.sbatch"
PREDICT = ("engine=analytic", "sd=synthetic", "hardware=H200", "sweep.batch_size=[1,2]", "sweep.gamma=[1]")  # fmt: skip


@pytest.fixture(scope="module")
def claim_and_job():
    text = (ROOT / "jobs" / "kuberay" / "rayjob.yaml").read_text()
    claim, job = yaml.safe_load_all(text)
    return claim, job


def containers(job):
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [c for group in groups for c in group["template"]["spec"]["containers"]]


def test_every_container_has_the_health_settings_of_the_library(claim_and_job):
    for container in containers(claim_and_job[1]):
        given = {entry["name"]: entry["value"] for entry in container["env"]}
        assert given.items() >= health_environment().items(), container["name"]


def test_the_cluster_of_the_manifest_asks_for_a_token_and_has_the_ray_it_names(claim_and_job):
    cluster = claim_and_job[1]["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "moesd-ray-token"}
    assert re.fullmatch(r"2\.\d+\.\d+", cluster["rayVersion"])


def test_results_lie_on_the_claimed_volume(claim_and_job):
    claim, job = claim_and_job
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (volume,) = head["volumes"]
    (mount,) = head["containers"][0]["volumeMounts"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert mount["name"] == volume["name"]
    given = yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]
    assert given["MOESD_HOME"] == mount["mountPath"]


def test_the_entrypoint_of_the_manifest_composes(claim_and_job):
    python, _, module, *arguments = shlex.split(claim_and_job[1]["spec"]["entrypoint"])
    assert (python, module) == ("python", "jobs.sweep")
    GlobalHydra.instance().clear()
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", overrides=[*arguments, "output=x"])
    assert specs.conf_from(composed).cluster.address == "auto"


FAKE_SCONTROL = "#!/usr/bin/env bash\nprintf 'n1\\nn2\\n'\n"
FAKE_SRUN = """#!/usr/bin/env bash
# Runs the step here; every node has the address of this machine, after two that nobody reaches.
while [[ $1 == --* ]]; do shift; done
[[ $1 == sh ]] && { printf '::1 127.0.1.1\\n%s\\n' "$ADDRESS"; exit; }
[[ $1 == ray ]] && set -- "$@" --num-cpus=1 --object-store-memory=100000000
exec "$@"
"""


def outward_address():
    """One of this machine that is not 127.*; nothing where there is no network."""
    found = (a for of in psutil.net_if_addrs().values() for a in of if a.family == socket.AF_INET)
    return next((a.address for a in found if not a.address.startswith("127.")), "")


@pytest.fixture
def slurm(tmp_path):
    """Starts the script as a job on two nodes that are both this machine."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"scontrol": FAKE_SCONTROL, "srun": FAKE_SRUN}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    job_id = str(os.getpid() % 30000 + 10000)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "ADDRESS": outward_address(),
        "SLURM_JOB_ID": job_id,
        "SLURM_JOB_NODELIST": "n[1-2]",
    }
    started = []

    def start(*arguments):
        job = subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(job)
        return job

    yield start
    for job in started:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    shutil.rmtree(f"/tmp/ray-{job_id}", ignore_errors=True)


def runs_in(database):
    with sqlite3.connect(database) as store:
        return store.execute("select count(*) from runs where status = 'FINISHED'").fetchone()[0]


@pytest.mark.skipif(not outward_address(), reason="this machine has no address but 127.*")
def test_the_slurm_script_runs_a_sweep_on_two_nodes_and_tidies_up(slurm, tmp_path):
    job = slurm(*PREDICT)
    said, _ = job.communicate(timeout=150)
    assert job.returncode == 0, said
    assert "[4/4]" in said
    assert "warning" not in said, "health checks and the token are set on every node"
    assert runs_in(tmp_path / "mlflow.db") == 5  # the sweep's own run and one a point
    logs = sorted(path.name for path in tmp_path.glob("ray-*.log"))
    assert len(logs) == 2
    assert all("Ray runtime started" in (tmp_path / name).read_text() for name in logs)
    assert not list(tmp_path.glob(".moesd-*")), "the token goes with the job"
    assert not still_running()
    assert not list(Path("/tmp").glob(f"ray-{os.getpid() % 30000 + 10000}*")), "nor files of Ray"


def still_running():
    """Processes that the job left behind; Ray's own need a moment."""
    deadline = time.monotonic() + 10
    while left := subprocess.run(
        ["pgrep", "-f", f"temp-dir=/tmp/ray-{os.getpid() % 30000 + 10000} "], capture_output=True
    ).stdout.split():
        if time.monotonic() > deadline:
            return left
        time.sleep(0.2)
    return []


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck here")
def test_shellcheck_finds_nothing_in_the_slurm_script():
    subprocess.run(["shellcheck", str(SCRIPT)], check=True)
