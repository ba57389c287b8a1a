"""Where MLflow keeps a sweep: checked before anything is spent, and how a person opens it."""

from __future__ import annotations

import hashlib
import os
import shlex
import sqlite3
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from moesd_dist.tracking.redact import redact

DEFAULT_URI = "sqlite:///mlflow.db"
_SQLITE = "sqlite:///"
_REACH_S = 3.0


def check_writable(tracking_uri: str) -> str:
    """The URI with its path made absolute; ValueError if nothing can be kept there.

    A database that does not exist yet is created, empty, with its folder.
    """
    if tracking_uri.startswith(_SQLITE) and not tracking_uri.endswith(":memory:"):
        path = sqlite_path(tracking_uri)
        _check_sqlite(path, tracking_uri)
        return f"{_SQLITE}{path}"
    if urlsplit(tracking_uri).scheme in ("http", "https"):
        _check_server(tracking_uri)
        return tracking_uri.rstrip("/")
    raise ValueError(
        f"tracking_uri is sqlite:///PATH or http(s)://HOST; got {redact(tracking_uri)!r}; "
        f"use {DEFAULT_URI}, or put `mlflow server` before any other store"
    )


def sqlite_path(tracking_uri: str) -> Path:
    return Path(tracking_uri.removeprefix(_SQLITE)).absolute()


def artifact_location(tracking_uri: str) -> str | None:
    """`mlartifacts` next to the database; None leaves it to the server."""
    if not tracking_uri.startswith(_SQLITE):
        return None
    return (sqlite_path(tracking_uri).parent / "mlartifacts").as_uri()


def journal_folder(tracking_uri: str, experiment: str, chosen: str = "") -> Path:
    """Where the journals of an experiment lie: in the chosen folder, beside a sqlite database, or
    with the user's state. Another store or another experiment means another folder."""
    if tracking_uri.startswith(_SQLITE):
        path = sqlite_path(tracking_uri)
        tracking_uri, beside = f"{_SQLITE}{path}", path.parent / "moesd_journal"
    else:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        tracking_uri, beside = tracking_uri.rstrip("/"), Path(state) / "moesd-dist" / "journal"
    store = hashlib.sha256(f"{_without_password(tracking_uri)}\n{experiment}".encode())
    return (Path(chosen).expanduser().absolute() if chosen else beside) / store.hexdigest()[:12]


def address(tracking_uri: str) -> str:
    """The server's URL, or the command that opens the database."""
    if not tracking_uri.startswith(_SQLITE):
        return redact(tracking_uri)
    return (
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false "  # 0.4 GiB instead of 1.8
        f"{_mlflow()} ui --workers 1 --host 127.0.0.1 "
        f"--backend-store-uri {shlex.quote(tracking_uri)}"
    )


def _mlflow() -> str:
    """The program of this environment, which need not be on the PATH."""
    here = Path(sys.executable).parent / "mlflow"
    return shlex.quote(str(here)) if here.exists() else "mlflow"


def _check_sqlite(path: Path, tracking_uri: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _take_write_lock(path)
    except (OSError, sqlite3.Error) as error:
        raise ValueError(
            f"tracking_uri names a sqlite file that can be written; got {tracking_uri!r} "
            f"({error}); choose another path, such as {DEFAULT_URI}"
        ) from error


def _take_write_lock(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def _check_server(tracking_uri: str) -> None:
    """Any answer will do, a refusal to log in too: MLflow has its own credentials."""
    try:
        with urllib.request.urlopen(_without_password(tracking_uri), timeout=_REACH_S):
            return
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        raise ValueError(
            f"tracking_uri names a server that answers; got {redact(tracking_uri)!r} "
            f"({getattr(error, 'reason', error)}); "
            f"start it with `mlflow server`, or use {DEFAULT_URI}"
        ) from error


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
