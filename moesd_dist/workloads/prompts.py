"""Prompts as token lists, drawn from a workload by seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from moesd_dist.records import WorkloadSpec
from moesd_dist.workloads.stdlib import Document, code_documents, prose_documents

Encode = Callable[[str], list[int]]
CHARS_PER_TOKEN = 12  # ample: a window of text this long always yields enough tokens
TRIES = 1000  # starts to try before giving up
NAMES = ("stdlib_code", "stdlib_prose", "jsonl", "random")


def draw_prompts(
    spec: WorkloadSpec, *, count: int, repeat: int, encode: Encode | None, vocab_size: int
) -> list[list[int]]:
    """`count` prompts as token ids; a longer list begins with the shorter one of the same repeat."""
    rng = random.Random(f"{spec.name}/{spec.seed}/{repeat}")
    if spec.name == "random":
        return [_random_tokens(spec, rng, vocab_size) for _ in range(count)]
    if encode is None:
        raise ValueError(
            f"workload {spec.name} is text and the model has no tokenizer; use workload=random"
        )
    if spec.name == "jsonl":
        return _from_file(spec, rng, count, encode)
    return [_excerpt(spec, rng, encode) for _ in range(count)]


def _random_tokens(spec: WorkloadSpec, rng: random.Random, vocab_size: int) -> list[int]:
    return [rng.randrange(1, vocab_size) for _ in range(_length(spec, rng))]


def _length(spec: WorkloadSpec, rng: random.Random) -> int:
    return rng.randint(spec.prompt_tokens_min, spec.prompt_tokens_max)


def _excerpt(spec: WorkloadSpec, rng: random.Random, encode: Encode) -> list[int]:
    """Consecutive text from the start of a random line of a held-out document."""
    documents = held_out(spec.name)
    length = _length(spec, rng)
    for _ in range(TRIES):
        text = rng.choices(documents, weights=[len(d.text) for d in documents])[0].text
        start = text.rfind("\n", 0, rng.randrange(len(text))) + 1
        ids = encode(text[start : start + length * CHARS_PER_TOKEN])
        if len(ids) >= length:
            return ids[:length]
    raise ValueError(
        f"workload {spec.name} has no held-out text of {length} tokens; lower workload.prompt_tokens_max"
    )


@lru_cache(maxsize=2)
def held_out(name: str) -> tuple[Document, ...]:
    """The standard library's text that the embedded pair never saw."""
    source: Iterable[Document] = code_documents() if name == "stdlib_code" else prose_documents()
    documents = tuple(document for document in source if document.is_held_out)
    if not documents:
        raise ValueError(
            f"workload {name}: no held-out text in this Python's standard library; "
            "use workload=jsonl or a Python with its sources"
        )
    return documents


def _from_file(
    spec: WorkloadSpec, rng: random.Random, count: int, encode: Encode
) -> list[list[int]]:
    """Whole prompts of the wanted lengths in a seeded order, repeated if the file is short."""
    encoded = [encode(text) for text in read_jsonl(spec.path)]
    fitting = [p for p in encoded if spec.prompt_tokens_min <= len(p) <= spec.prompt_tokens_max]
    if not fitting:
        lengths = sorted(map(len, encoded))
        raise ValueError(
            f"workload.path {spec.path}: no prompt has {spec.prompt_tokens_min} to "
            f"{spec.prompt_tokens_max} tokens (they have {lengths[0]} to {lengths[-1]}); "
            "widen workload.prompt_tokens_min and prompt_tokens_max"
        )
    order = rng.sample(fitting, len(fitting))
    return [order[i % len(order)] for i in range(count)]


def read_jsonl(path: str) -> list[str]:
    """Prompts in file order: HumanEval's `prompt`, MT-bench's first of `turns`."""
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"workload.path {path!r} is no file; give a JSON-lines file of prompts")
    prompts = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            prompts.append(_prompt_of(line, path, number))
    if not prompts:
        raise ValueError(f"workload.path {path} holds no prompts; give one JSON object a line")
    return prompts


def _prompt_of(line: str, path: str, number: int) -> str:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} line {number} is not JSON: {error.msg}") from error
    prompt = entry.get("prompt") if isinstance(entry, dict) else None
    if prompt is None and isinstance(entry, dict):
        prompt = next(iter(entry.get("turns") or []), None)
    if not isinstance(prompt, str):
        raise ValueError(
            f'{path} line {number} has neither "prompt" nor "turns"; see workload=jsonl'
        )
    return prompt
