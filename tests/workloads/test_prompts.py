"""Prompts come from text that training never saw, the same ones for the same seed."""

from __future__ import annotations

import json

import pytest

from moesd_dist.records import WorkloadSpec
from moesd_dist.workloads.prompts import draw_prompts, held_out, read_jsonl
from moesd_dist.workloads.stdlib import Document, code_documents, prose_documents


def encode(text: str) -> list[int]:
    return list(text.encode())


def spec(name: str = "stdlib_code", **changes):
    fields = {"name": name, "prompt_tokens_min": 20, "prompt_tokens_max": 30, "output_tokens": 4}
    return WorkloadSpec(**(fields | changes))


def draw(which, count=6, repeat=0):
    return draw_prompts(which, count=count, repeat=repeat, encode=encode, vocab_size=256)


@pytest.mark.parametrize("name", ["stdlib_code", "stdlib_prose", "random"])
def test_lengths_lie_in_the_range_and_seeds_decide(name):
    prompts = draw(spec(name))
    assert all(20 <= len(prompt) <= 30 for prompt in prompts)
    assert prompts == draw(spec(name))
    assert prompts != draw(spec(name), repeat=1)
    assert prompts != draw(spec(name, seed=1))


def test_a_longer_list_begins_with_the_shorter_one():
    assert draw(spec(), count=9)[:4] == draw(spec(), count=4)


@pytest.mark.parametrize("name", ["stdlib_code", "stdlib_prose"])
def test_prompts_are_verbatim_held_out_text(name):
    texts = [document.text.encode() for document in held_out(name)]
    for prompt in draw(spec(name)):
        assert any(bytes(prompt) in text for text in texts)


def test_the_split_follows_the_name_and_nothing_else():
    assert Document(name="threading.py", text="x").is_held_out
    assert not Document(name="json/decoder.py", text="x").is_held_out
    held = [d for d in code_documents() if d.is_held_out]
    share = len(held) / sum(1 for _ in code_documents())
    assert 0.02 < share < 0.15


def test_a_module_and_its_docstrings_fall_on_the_same_side():
    sides = {d.name: d.is_held_out for d in code_documents()}
    prose = [d for d in prose_documents() if d.name in sides]
    assert prose
    assert all(d.is_held_out == sides[d.name] for d in prose)


def test_both_published_layouts_of_a_prompts_file_are_read(tmp_path):
    file = tmp_path / "prompts.jsonl"
    lines = [{"task_id": "HumanEval/0", "prompt": "def f():"}, {"turns": ["Hello", "again"]}]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert read_jsonl(str(file)) == ["def f():", "Hello"]


def test_a_short_file_is_repeated_and_unfit_lengths_are_named(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": "x" * n}) for n in (25, 28, 90)))
    found = draw(spec("jsonl", path=str(file)), count=5)
    assert sorted({len(prompt) for prompt in found}) == [25, 28]
    with pytest.raises(ValueError, match="25 to 90"):
        draw(spec("jsonl", path=str(file), prompt_tokens_min=40, prompt_tokens_max=50))


def test_text_needs_a_tokenizer():
    with pytest.raises(ValueError, match="workload=random"):
        draw_prompts(spec(), count=1, repeat=0, encode=None, vocab_size=10)
