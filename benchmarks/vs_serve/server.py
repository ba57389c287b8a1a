"""A server in processes of its own: up within a deadline, gone with all it started, its error in one line."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from moesd_dist.engines.vllm.child_log import last_line, telling_line
from moesd_dist.engines.vllm.process_tree import TAG, ProcessTree
from moesd_dist.engines.vllm.shared_memory import Segments

_POLL_S = 0.5
_GRACE_S = 5.0  # between SIGTERM and SIGKILL
# No network is needed, and a proxy would not find 127.0.0.1.
OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "NO_PROXY": "*", "no_proxy": "*"}


class CommandFailed(RuntimeError):  # noqa: N818 - an event, told as one
    """A command did not do what it is for; the message ends with the telling line of its log."""


@contextmanager
def serving(
    command: Sequence[str], url: str, environment: Mapping[str, str], log: Path, *, start_s: float
) -> Iterator[None]:
    """GET {url}/health answers when the block begins. CommandFailed if it never did.

    If a command in the block fails, its error says what the server's log tells of it.
    """
    with _running(command, environment, log) as (process, tree):
        _wait(process, tree, f"{url}/health", log, start_s)
        try:
            yield
        except CommandFailed as error:
            tells = telling_line(log.read_text(errors="replace"))
            raise CommandFailed(f"{error}; {log}: {tells or 'no error'}") from error


def run(
    command: Sequence[str], environment: Mapping[str, str], log: Path, *, limit_s: float
) -> None:
    """To its end. CommandFailed unless that is exit code 0 within the limit."""
    with _running(command, environment, log) as (process, _):
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise _failed(f"did not end within {limit_s:g} s", log) from None
    if code:
        raise _failed(f"ended with {code}", log)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def _running(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Iterator[tuple[subprocess.Popen[bytes], ProcessTree]]:
    segments, tag = Segments(), uuid.uuid4().hex
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **OFFLINE, **environment, TAG: tag},
            start_new_session=True,
        )
    tree = ProcessTree(process.pid, tag, segments)
    try:
        yield process, tree
    finally:
        tree.stop(_GRACE_S)
        process.poll()


def _wait(
    process: subprocess.Popen[bytes], tree: ProcessTree, url: str, log: Path, limit_s: float
) -> None:
    opener, deadline = build_opener(ProxyHandler({})), time.monotonic() + limit_s
    while process.poll() is None:
        with suppress(OSError), opener.open(url, timeout=_POLL_S):
            tree.note()
            return
        if time.monotonic() > deadline:
            raise _failed(f"was not ready within {limit_s:g} s", log)
        time.sleep(_POLL_S)
    raise _failed(f"ended with {process.returncode} before it was ready", log)


def _failed(how: str, log: Path) -> CommandFailed:
    text = log.read_text(errors="replace")
    return CommandFailed(f"{log.stem} {how}: {telling_line(text) or last_line(text)}; see {log}")
