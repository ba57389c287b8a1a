"""`python -m moesd_dist` as a Ray job: the same arguments, and results that outlive the job's folder.

    ray job submit --working-dir . --runtime-env-json '{"env_vars": {"MOESD_HOME": "/shared/moesd"}}' \\
        -- python -m jobs.sweep +exp=quickstart cluster=existing

Relative paths (the database, the journal, the output) are paths in MOESD_HOME, which every node on
which the job may start has to see, or the head alone if jobs start there. Without it they are of the
current folder, which may not be the one that Ray deletes with the job.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path

from moesd_dist.console import errors_as_one_line

HOME = "MOESD_HOME"
OF_RAY = "runtime_resources"  # the folder of Ray's working directories, deleted with their jobs


def home(environment: Mapping[str, str], here: Path) -> Path:
    """Where relative paths lead; ValueError if that is gone when the job ends."""
    given = environment.get(HOME, "")
    folder = Path(given).expanduser() if given else here
    if not folder.is_absolute():
        raise ValueError(f"{HOME} is an absolute path; got {given!r}; use /shared/moesd, say")
    if OF_RAY in folder.parts:
        raise ValueError(
            f"a job keeps its results outside of its own folder, which Ray deletes; got {folder}; "
            f'submit with --runtime-env-json \'{{"env_vars": {{"{HOME}": "/a/folder/that/stays"}}}}\''
        )
    return folder


def main() -> None:
    with errors_as_one_line():
        folder = home(os.environ, Path.cwd())
        _enter(folder)
    runpy.run_module("moesd_dist", run_name="__main__", alter_sys=True)


def _enter(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
    except OSError as error:
        raise ValueError(f"{HOME} is a folder that can be made and entered; {error}") from error
    sys.path[:] = [path for path in sys.path if path]  # '' would now be another folder


if __name__ == "__main__":
    main()
