"""What loading one rank's share takes, measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from moesd_dist.engines.transformers.load import load_model
from tests.engines.stored_models import save

CPU = torch.device("cpu")
PEAK = Path(__file__).parent / "loading_peak.py"


def test_a_hub_name_is_read_from_its_cache(kit, tmp_path):
    shards = tmp_path / "written"
    save(load_model(kit.spec_of("tiny_qwen3_moe"), CPU), shards, "shards")
    repository = tmp_path / "models--moesd--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / ("0" * 40)).symlink_to(shards)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)}
    (found,) = _peaks([["moesd/tiny", "float32", 8]], **offline)
    assert found["experts_bytes"] == 2 * 3 * 64 * 32 * 4


@pytest.fixture(scope="module")
def large(tmp_path_factory, kit):
    """Checkpoints with 100 MB of experts in bf16, and the same as a shape."""
    sizes = {
        "num_experts": 32,
        "hidden_size": 512,
        "moe_intermediate_size": 512,
        "num_attention_heads": 4,
    }
    shape = replace(kit.spec_of("tiny_qwen3_moe", **sizes), dtype="bfloat16")
    root = tmp_path_factory.mktemp("large")
    for form in ("apart", "fused"):
        save(load_model(shape, CPU), root / form, form)
    (root / "shape.json").write_text(json.dumps(dict(shape.config)))
    return root


@pytest.fixture(scope="module")
def peaks(large):
    """What loading took at most, by source: for one of eight ranks and for all experts."""
    places = {"wide": "wide"} | {n: str(large / n) for n in ("apart", "fused", "shape.json")}
    jobs = [[where, "bfloat16", ranks] for where in places.values() for ranks in (8, 1)]
    found = iter(_peaks(jobs))
    return {source: (next(found), next(found)) for source in places}


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("source", ["apart", "fused", "shape.json", "wide"])
def test_a_rank_never_takes_the_memory_of_all_experts(peaks, source):
    share, whole = peaks[source]
    assert whole["experts_bytes"] == 8 * share["experts_bytes"] > 90e6
    for loaded in (share, whole):  # what cannot be less, or nothing was measured
        assert loaded["peak_bytes"] > 0.9 * loaded["experts_bytes"]
    assert share["peak_bytes"] < 0.4 * whole["experts_bytes"]


def _peaks(jobs: list[list[str | int]], **environment: str) -> list[dict[str, int]]:
    fixed = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}  # freed is given back
    run = subprocess.run(
        [sys.executable, str(PEAK), json.dumps(jobs)],
        env=os.environ | fixed | environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
