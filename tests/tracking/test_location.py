"""Where a sweep may be kept is checked before anything is spent."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from moesd_dist.tracking.location import address, artifact_location, check_writable


def test_an_unwritable_path_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"can be written; got .*file/mlflow.db.*choose") as caught:
        check_writable(f"sqlite:///{tmp_path}/file/mlflow.db")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("these are notes of mine, please keep them\n" * 100)
    with pytest.raises(ValueError, match=r"file is not a database"):
        check_writable(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("file:///tmp/mlruns", id="the file store is gone from MLflow"),
        pytest.param("./mlruns", id="a bare path"),
        pytest.param("sqllite:///mlflow.db", id="a slip of the pen"),
        pytest.param("sqlite://", id="a database in memory keeps nothing"),
        pytest.param("sqlite:///", id="no path"),
        pytest.param("sqlite:///:memory:", id="in memory by name"),
        pytest.param("", id="nothing"),
    ],
)
def test_another_store_is_refused_with_the_way_out(uri: str) -> None:
    with pytest.raises(ValueError, match=r"sqlite:///mlflow\.db") as caught:
        check_writable(uri)
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_answer_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=r"a server that answers") as caught:
            check_writable(f"http://ada:hunter2@127.0.0.1:{port}")
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_writable("sqlite:///new/mlflow.db") == f"sqlite:///{tmp_path}/new/mlflow.db"


def test_artifacts_lie_next_to_the_database_or_where_the_server_says() -> None:
    assert artifact_location("sqlite:////a b/mlflow.db") == "file:///a%20b/mlartifacts"
    assert artifact_location("http://localhost:5000") is None


def test_the_address_of_a_server_hides_its_password() -> None:
    assert address("http://ada:hunter2@host:5000") == "http://ada:<redacted>@host:5000"


def test_the_address_of_a_database_is_a_command_that_mlflow_knows() -> None:
    words = shlex.split(address("sqlite:////tmp/a b/mlflow.db"))
    assert (Path(words[1]).name, words[2]) == ("mlflow", "ui")
    assert words[-1] == "sqlite:////tmp/a b/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "ui", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(word in told for word in words if word.startswith("--"))
