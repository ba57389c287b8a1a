"""Greedy SD writes what plain decoding writes, for every family with grouped-query attention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engines.vllm import apart
from tests.engines.vllm.families import METHODS, PROMPTS

FAMILIES = ("qwen2_moe", "qwen3_moe", "mixtral", "olmoe")


@pytest.fixture(scope="module")
def equal(
    cpu_fixed: dict[str, str], tiny_checkpoint: Callable[[str], Path]
) -> dict[str, dict[str, int]]:
    folders = [str(tiny_checkpoint(name)) for name in ("qwen3", *FAMILIES)]
    found: dict[str, dict[str, int]] = apart.run(
        "tests.engines.vllm.families", *folders, deadline_s=240, environment=cpu_fixed
    )
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_outputs_equal_plain_decoding(
    equal: dict[str, dict[str, int]], family: str, method: str
) -> None:
    assert equal[family][method] == PROMPTS
