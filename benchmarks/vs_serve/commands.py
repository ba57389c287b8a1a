"""The command lines of `vllm serve` and `vllm bench serve` for one point."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from moesd_dist.engines.vllm.settings import SEQUENCES, engine_arguments
from moesd_dist.records import SweepPoint

VLLM = (sys.executable, "-m", "benchmarks.vllm_cli")
# Our probe is left out, and log statistics are on in a server unless it is told otherwise.
OURS_ALONE = frozenset({"worker_extension_cls", "disable_log_stats"})


def serve(point: SweepPoint, port: int) -> list[str]:
    arguments = engine_arguments(point, max_num_seqs=SEQUENCES)
    model = arguments.pop("model")
    told = {name: value for name, value in arguments.items() if name not in OURS_ALONE}
    return [*VLLM, "serve", model, "--host", "127.0.0.1", "--port", str(port), *flags(told)]


def bench(point: SweepPoint, url: str, prompts: Path, count: int, result: Path) -> list[str]:
    """Prompts in file order and as they are, every request to its full length."""
    told = {
        "backend": "openai",
        "base_url": url,
        "endpoint": "/v1/completions",
        "model": engine_arguments(point, max_num_seqs=SEQUENCES)["model"],
        "dataset_name": "custom",
        "dataset_path": str(prompts),
        "custom_output_len": point.workload.output_tokens,
        "num_prompts": count,
        "max_concurrency": point.batch_size,
        "temperature": point.temperature,
        "ignore_eos": True,
        "disable_shuffle": True,
        "skip_chat_template": True,
        "no_oversample": True,
        "disable_tqdm": True,
        "ready_check_timeout_sec": 60,
        "save_result": True,
        "save_detailed": True,
        "result_dir": str(result.parent),
        "result_filename": result.name,
    }
    return [*VLLM, "bench", "serve", *flags(told)]


def flags(arguments: Mapping[str, Any]) -> list[str]:
    """Keyword arguments of vLLM as flags of its command line."""
    return [word for name, value in arguments.items() for word in _words(name, value)]


def _words(name: str, value: Any) -> Iterator[str]:
    name = name.replace("_", "-")
    if isinstance(value, bool):
        yield f"--{name}" if value else f"--no-{name}"
        return
    yield f"--{name}"
    yield json.dumps(value) if isinstance(value, dict | list) else str(value)
