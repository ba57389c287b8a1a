"""Provenance is collected from a real repository, and holds no secrets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from moesd_dist.tracking.provenance import collect
from moesd_dist.tracking.redact import redact

HEX = "9f86d081884c7d659a2feaa0c55ad015"  # of nothing: the digest of "test"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        pytest.param("login=hf_" + "aB3dE5gH7jK9mN1pQ3sT5vW7", "aB3dE5", id="Hugging Face"),
        pytest.param("x sk-" + "proj-aB3dE5gH7jK9mN1pQ3sT", "aB3dE5", id="sk-"),
        pytest.param("ghp_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9", "aB3dE5", id="GitHub"),
        pytest.param("AKIA" + "ABCDEFGHIJ123456", "ABCDEFGHIJ", id="AWS key id"),
        pytest.param(f"DB_PASSWORD={HEX}", HEX, id="hex after a password"),
        pytest.param(f"secret: '{HEX}'", HEX, id="YAML"),
        pytest.param(f'"api_key": "{HEX}"', HEX, id="JSON"),
        pytest.param(f"--token {HEX}", HEX, id="a command-line option"),
        pytest.param("http://ada:hunter2@host:5000", "hunter2", id="a password in a URL"),
        pytest.param("-----BEGIN RSA " + "PRIVATE KEY-----\nMII\nEpA", "EpA", id="a key, cut off"),
    ],
)
def test_secrets_are_redacted_by_shape(text: str, secret: str) -> None:
    assert secret not in redact(f"before {text}\n")
    assert redact(f"before {text}\n").startswith("before ")
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("num_draft_tokens=4", id="a number of tokens"),
        pytest.param("workload.output_tokens=128 tokenizer=Qwen/Qwen3-30B-A3B-Instruct-2507"),
        pytest.param("tokens: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]"),
        pytest.param(f"git_commit={HEX}", id="a digest that nobody calls a password"),
        pytest.param("task-something-long-and-hyphenated-2", id="sk- within a word"),
        pytest.param("hf_config_overrides_for_the_model=1", id="hf_ before words"),
        pytest.param("http://host:5000/a@b sqlite:////home/ada/mlflow.db", id="URLs"),
        pytest.param("password: ${oc.env:DB_PASSWORD}", id="a reference, not a value"),
    ],
)
def test_what_is_no_secret_survives(text: str) -> None:
    assert redact(text) == text


def test_redaction_takes_linear_time_on_one_long_line() -> None:
    assert redact("aB3_" * 250_000).startswith("aB3_")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    (tmp_path / "code.py").write_text("x = 1\n")
    for command in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "first")):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def test_a_clean_repository_has_a_commit_and_no_diff(repo: Path) -> None:
    kept = collect(["moesd"], repo)
    assert len(kept.git_commit) == 40
    assert (kept.git_dirty, kept.git_diff) == (False, "")


def test_an_edited_repository_is_dirty_and_its_diff_is_redacted(repo: Path) -> None:
    (repo / "code.py").write_text(f"x = 2\npassword = '{HEX}'\n")
    kept = collect(["moesd"], repo)
    assert kept.git_dirty
    assert "+x = 2" in kept.git_diff
    assert HEX not in kept.git_diff


def test_a_new_file_makes_a_repository_dirty(repo: Path) -> None:
    (repo / "new.py").write_text("")
    assert collect(["moesd"], repo).git_dirty


@pytest.mark.parametrize("inside", [True, False], ids=["no repository", "no folder"])
def test_no_repository_is_fine(tmp_path: Path, inside: bool) -> None:
    kept = collect(["moesd"], tmp_path if inside else None)
    assert (kept.git_commit, kept.git_dirty, kept.git_diff) == ("", False, "")


def test_the_machine_and_the_packages_are_named() -> None:
    kept = collect(["python", "-m", "moesd_dist", "name=two words"], None)
    assert kept.command == "python -m moesd_dist 'name=two words'"
    assert kept.cores >= 1
    assert kept.memory_bytes > 2**28
    assert "mlflow" in kept.packages
    assert "vllm" not in kept.packages or kept.packages["vllm"]


def test_tracking_does_not_import_torch() -> None:
    code = (
        "import sys, moesd_dist.tracking.mlflow as m, moesd_dist.tracking.provenance as p\n"
        "p.collect([], None); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
