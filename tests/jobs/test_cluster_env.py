"""What nodes are started with: settings that a shell takes over, and a token that nobody else reads."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.cluster_env import exports, node_environment
from moesd_dist.sweep.cluster.environment import (
    CUT_LINK_S,
    health_environment,
    seconds_to_notice,
    token_file,
)
from moesd_dist.sweep.cluster.wheels import runtime_env


def test_the_settings_notice_a_cut_link_in_time_and_those_of_ray_do_not():
    assert seconds_to_notice(health_environment()) <= CUT_LINK_S
    assert seconds_to_notice({}) > 60


def test_a_shell_takes_the_lines_over_and_sees_no_token(tmp_path):
    file = tmp_path / "a folder" / "token"
    command = [sys.executable, "-m", "jobs.cluster_env", "--token-file", str(file)]
    given = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    lines = subprocess.run(command, env=given, check=True, capture_output=True, text=True).stdout
    assert file.read_text() not in lines
    seen = subprocess.run(
        ["bash", "-c", 'eval "$1"; env -0', "bash", lines], env={}, check=True, capture_output=True
    ).stdout.decode()
    found = dict(entry.split("=", 1) for entry in seen.split("\0") if entry)
    assert found.items() >= node_environment({}, file).items()


def test_what_a_person_has_set_stays():
    given = {"RAY_health_check_period_ms": "250", "RAY_AUTH_TOKEN_PATH": "/elsewhere"}
    made = node_environment(given, Path("/token"))
    assert made["RAY_health_check_period_ms"] == "250"
    assert made["RAY_AUTH_TOKEN_PATH"] == "/token"
    assert "export RAY_AUTH_TOKEN_PATH=/token" in exports(made).splitlines()


def test_a_token_file_is_made_once_and_is_its_owners_alone(tmp_path):
    file = tmp_path / "ray" / "token"
    before = os.umask(0)
    try:
        token_file(file)
    finally:
        os.umask(before)
    made = file.read_text()
    assert len(made) == 64
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    token_file(file)
    assert file.read_text() == made
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_token_that_is_private_is_left_as_it_is(tmp_path):
    """As a mounted secret, which nobody can change."""
    file = tmp_path / "token"
    file.write_text("given")
    file.chmod(0o400)
    token_file(file)
    assert file.read_text() == "given"
    assert stat.S_IMODE(file.stat().st_mode) == 0o400


def test_nodes_that_make_the_token_at_once_have_the_same(tmp_path):
    file = tmp_path / "token"
    with ThreadPoolExecutor(8) as nodes:
        read = list(nodes.map(lambda _: token_file(file).read_text(), range(64)))
    assert {len(token) for token in read} == {64}
    assert len(set(read)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_an_empty_token_file_is_refused(tmp_path):
    (tmp_path / "token").write_text("\n")
    with pytest.raises(ValueError, match=r"a token file holds a token; .*token is empty; remove"):
        token_file(tmp_path / "token")


def test_a_token_file_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match=r"a token file is one that can be written; got .*; choose"
    ):
        token_file(tmp_path / "file" / "token")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        pytest.param([], "cluster.wheels is a folder with wheels in it", id="none"),
        pytest.param(["moesd.whl"], "files named as pip names them; got moesd.whl", id="a name"),
        pytest.param(["a-1-cp27-cp27m-win32.whl"], "for this Python and platform", id="another"),
        pytest.param(["a-1-py3-none-any.whl"], "is no wheel", id="not a zip file"),
    ],
)
def test_wheels_that_workers_could_not_use_are_refused(tmp_path, names, message):
    for name in names:
        (tmp_path / name).write_text("nothing")
    with pytest.raises(ValueError, match=message):
        runtime_env(str(tmp_path), {})


def test_without_wheels_the_runtime_env_is_what_was_given():
    given = {"env_vars": {"A": "b"}, "py_modules": ["x"]}
    assert json.dumps(runtime_env("", given)) == json.dumps(given)
