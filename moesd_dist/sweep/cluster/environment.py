"""What every node of a cluster has in its environment before Ray starts: quick health checks, a token, workers like others."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

# A node that died answers nothing and fails every PERIOD; one behind a cut link takes TIMEOUT more.
# Ray's own: 3 s, 10 s, 5 failures.
PERIOD_MS, TIMEOUT_MS, FAILURES = 500, 1000, 3
FIRST_CHECK_MS = 2000  # a node that is still starting is not asked yet
# Ray's own is 15: whatever else runs on the machine would take the cores from what is measured.
NICENESS = 0
CUT_LINK_S = 10.0  # what the settings have to keep


def health_environment() -> dict[str, str]:
    """The only source of these settings; they count on the head, before it starts."""
    return {
        "RAY_health_check_initial_delay_ms": str(FIRST_CHECK_MS),
        "RAY_health_check_period_ms": str(PERIOD_MS),
        "RAY_health_check_timeout_ms": str(TIMEOUT_MS),
        "RAY_health_check_failure_threshold": str(FAILURES),
        "RAY_worker_niceness": str(NICENESS),
    }


def seconds_to_notice(environment: Mapping[str, str]) -> float:
    """How long a cut link can go unnoticed with these settings, Ray's defaults where one is missing."""

    def setting(name: str, default: int) -> float:
        return float(environment.get(f"RAY_health_check_{name}", default))

    once_ms = setting("period_ms", 3000) + setting("timeout_ms", 10000)
    return once_ms * setting("failure_threshold", 5) / 1000


def token_file(path: Path | None = None) -> Path:
    """A file with a token that only its owner can read: the one there is, else a new one.

    Without a path it is Ray's own, ~/.ray/auth_token, or a temporary one where no home can be written.
    """
    file = path or Path.home() / ".ray" / "auth_token"
    try:
        return _owned(file)
    except OSError as error:
        if path is not None:
            raise ValueError(
                f"a token file is one that can be written; got {path} ({error}); choose another"
            ) from error
        return _owned(Path(tempfile.mkdtemp(prefix="moesd-")) / "auth_token")


def _owned(file: Path) -> Path:
    if not file.exists():
        _make(file)
    if not file.read_text().strip():
        raise ValueError(f"a token file holds a token; {file} is empty; remove it for a new one")
    if file.stat().st_mode & 0o077:  # a mounted secret is read-only, and needs no change
        file.chmod(0o600)
    return file


def _make(file: Path) -> None:
    """Whole or not at all: of several nodes on a shared disk one is first, and none reads half."""
    file.parent.mkdir(parents=True, exist_ok=True)
    opened, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")  # mode 0600
    try:
        with os.fdopen(opened, "w") as new:
            new.write(secrets.token_hex(32))
        with suppress(FileExistsError):
            os.link(name, file)
    finally:
        os.unlink(name)
