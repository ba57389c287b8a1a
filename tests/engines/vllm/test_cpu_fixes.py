"""The CPU fixes: idle unless asked for, by the rules of vLLM's own kernels, each shown to work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from moesd_dist.engines.vllm import cpu_fixes
from moesd_dist.engines.vllm.cpu_fixes.expand import expand
from moesd_dist.engines.vllm.cpu_fixes.expert_map import local_choices
from moesd_dist.engines.vllm.cpu_fixes.synthetic import Candidates, Draws, accept, greedy_rows
from tests.engines.vllm import apart
from tests.engines.vllm.cpu_scenarios import RATES

IDLE = """
import sys
from moesd_dist.engines.vllm import cpu_fixes
cpu_fixes.register()
assert not cpu_fixes.active()
assert not {"vllm", "torch"} & set(sys.modules)
"""


@pytest.mark.parametrize("value", [None, "", "0"])
def test_without_the_switch_nothing_is_touched_or_imported(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(cpu_fixes.SWITCH, raising=False)
    if value is not None:
        monkeypatch.setenv(cpu_fixes.SWITCH, value)
    subprocess.run([sys.executable, "-c", IDLE], check=True, timeout=60)


@pytest.mark.parametrize("version", ["0.32.0", "0.32.0+cpu"])
def test_the_pinned_version_is_accepted(version: str) -> None:
    cpu_fixes.require_version(version)


@pytest.mark.parametrize("version", ["0.32.1", "0.33.0", "0.32.0rc1", "dev"])
def test_another_version_is_refused_with_the_way_out(version: str) -> None:
    with pytest.raises(ValueError, match=rf"needs vLLM 0\.32\.0.*{version}; unset it or install"):
        cpu_fixes.require_version(version)


# Two rows of three drafts, one of none; replacements are 10 above the drafts, bonus tokens 90 and up.
@pytest.mark.parametrize(
    ("uniform", "mine", "expected"),
    [
        pytest.param(
            [0.1, 0.1, 0.1, 0.1, 0.1, 0.1],
            [True] * 3,
            [[1, 2, 3, 90], [4, 5, 6, 91], [92, -1, -1, -1]],
            id="all accepted: the bonus token follows",
        ),
        pytest.param(
            [0.9, 0.1, 0.1, 0.1, 0.9, 0.1],
            [True] * 3,
            [[11, -1, -1, -1], [4, 15, -1, -1], [92, -1, -1, -1]],
            id="a rejection is replaced and ends the row",
        ),
        pytest.param(
            [0.1, 0.1, 0.25, 0.5, 0.1, 0.1],
            [True] * 3,
            [[1, 2, 13, -1], [4, 5, 6, 91], [92, -1, -1, -1]],
            id="a draw equal to the rate rejects, each position has its rate",
        ),
        pytest.param(
            [0.1] * 6,
            [False, True, False],
            [[-1] * 4, [4, 5, 6, 91], [-1] * 4],
            id="the other kernel's rows are left alone",
        ),
    ],
)
def test_synthetic_acceptance(
    uniform: list[float], mine: list[bool], expected: list[list[int]]
) -> None:
    drafts = torch.tensor([1, 2, 3, 4, 5, 6])
    candidates = Candidates(drafts, drafts + 10, torch.tensor([[90], [91], [92]]))
    draws = Draws(torch.tensor(uniform, dtype=torch.float64), torch.tensor([0.75, 0.5, 0.25]))
    output = torch.full((3, 4), -1, dtype=torch.int32)
    accept(output, torch.tensor([3, 6, 6]), mine, candidates, draws)
    assert output.tolist() == expected


def test_a_padded_draft_is_rejected_whatever_the_rate() -> None:
    candidates = Candidates(torch.tensor([7, -1]), torch.tensor([17, 18]), torch.tensor([[90]]))
    output = torch.full((1, 3), -1)
    accept(output, torch.tensor([2]), [True], candidates, Draws(torch.zeros(2), torch.ones(2)))
    assert output.tolist() == [[7, 18, -1]]


def test_no_mask_of_greedy_rows_means_all_of_them() -> None:
    assert greedy_rows(None, 2) == [True, True]
    assert greedy_rows(torch.tensor([False, True]), 2) == [False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.int64])
def test_a_requests_value_reaches_its_tokens(dtype: torch.dtype) -> None:
    output = torch.full((5,), -1, dtype=dtype)
    values = torch.tensor([0, 3, 2], dtype=dtype)
    expand(output, values, torch.tensor([2, 2, 5], dtype=torch.int32), 0, 1, 128)
    assert output.tolist() == [1, 1, 2, 2, 2]


def test_choices_of_other_ranks_experts_weigh_nothing() -> None:
    expert_map = torch.tensor([-1, -1, 0, 1], dtype=torch.int32)
    weights, chosen = local_choices(
        torch.tensor([[0.75, 0.25]]), torch.tensor([[3, 1]], dtype=torch.int32), expert_map
    )
    assert weights.tolist() == [[0.75, 0.0]]
    assert chosen.tolist() == [[1, 0]]
    assert chosen.dtype is torch.int32


def test_a_late_process_is_ended_with_its_children_and_their_shared_memory() -> None:
    name = f"moesd_{os.getpid()}"
    began = time.monotonic()
    with pytest.raises(AssertionError, match="not done within 2 s"):
        apart.run("tests.engines.vllm.sleepers", name, deadline_s=2, environment={})
    assert time.monotonic() - began < 10
    assert not list(apart.SHARED_MEMORY.glob(f"{name}_*"))


@pytest.fixture
def scenario(
    cpu_fixed: dict[str, str], tiny_checkpoint: Callable[[str], Path]
) -> Callable[[str], Any]:
    """Runs one of cpu_scenarios on the tiny Qwen3-MoE."""

    def run(name: str) -> Any:
        checkpoint = str(tiny_checkpoint("qwen3_moe"))
        module = "tests.engines.vllm.cpu_scenarios"
        return apart.run(module, name, checkpoint, deadline_s=200, environment=cpu_fixed)

    return run


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    """The tokens of plain decoding, filled in by the first test that needs them."""
    return {}


@pytest.fixture
def plain(scenario: Callable[[str], Any], reference: dict[str, Any]) -> Any:
    if not reference:
        reference["tokens"] = scenario("plain")
    return reference["tokens"]


def test_an_engine_starts_although_numba_is_loaded(plain: Any) -> None:
    assert [len(row) for row in plain] == [24] * 8


def test_synthetic_acceptance_meets_the_rates_asked_for(scenario: Callable[[str], Any]) -> None:
    assert scenario("synthetic") == pytest.approx(RATES, abs=0.03)


def test_at_temperature_one_a_draft_equal_to_the_target_is_always_accepted(
    scenario: Callable[[str], Any],
) -> None:
    found = scenario("random_sampling")
    assert found["accepted_tokens"] == found["draft_tokens"] == 3 * found["drafts"] > 0
    assert found["distinct"] > 100  # of 512: drawn, not token 0 all along


def test_expert_parallelism_changes_no_token(scenario: Callable[[str], Any], plain: Any) -> None:
    assert scenario("expert_parallel") == plain


def test_data_and_expert_parallelism_with_speculation_change_no_token(
    scenario: Callable[[str], Any], plain: Any
) -> None:
    found = scenario("data_parallel")
    assert found["tokens"] == plain[:5] + [row[:12] for row in plain[5:]]
    assert all(rank["accepted_tokens"] > 0 for rank in found["counts"])
