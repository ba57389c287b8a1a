"""Greedy outputs of four MoE families with and without SD: `python -m tests.engines.vllm.families FOLDER...`.

One process for all: an engine after the first starts in two seconds. Prints one line of JSON: by
family and method, how many of the prompts got the tokens of plain decoding.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

from tests.engines.vllm.cpu_scenarios import engine, generate

PROMPTS, TOKENS = 8, 24
METHODS: dict[str, dict[str, Any]] = {
    "draft_model": {"method": "draft_model", "num_speculative_tokens": 2},
    "ngram": {
        "method": "ngram",
        "prompt_lookup_min": 1,
        "prompt_lookup_max": 3,
        "num_speculative_tokens": 3,
    },
}


def outputs(folder: str, speculation: dict[str, Any] | None) -> list[list[int]]:
    llm = engine(folder, **({"speculative_config": speculation} if speculation else {}))
    found = generate(llm, [0.0] * PROMPTS, TOKENS)
    del llm
    gc.collect()
    gc.freeze()  # vLLM collects garbage ten times a start
    return found


def equal_prompts(folder: str, draft: str) -> dict[str, int]:
    plain = outputs(folder, None)
    equal = {}
    for name, settings in METHODS.items():
        model = {"model": draft} if name == "draft_model" else {}
        found = outputs(folder, {**settings, **model})
        equal[name] = sum(a == b for a, b in zip(plain, found, strict=True))
    return equal


if __name__ == "__main__":
    draft, *targets = sys.argv[1:]
    print(json.dumps({Path(t).name: equal_prompts(t, draft) for t in targets}), flush=True)
