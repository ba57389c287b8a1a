"""A ModelSpec resolves to its config, or to one sentence on why it cannot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from moesd_dist.models import sources
from moesd_dist.models.shape import shape_of
from moesd_dist.models.sources import content_digest, resolve_config, weights_location
from moesd_dist.records import ModelSource, ModelSpec

CONFIG: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 8,  # as transformers 5 saves Qwen3-MoE
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete checkpoint, as far as headers tell."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_file({"a": torch.zeros(3, 4), "b": torch.ones(5)}, tmp_path / WEIGHTS, {"format": "pt"})
    return tmp_path


def checkpoint(location: Path | str, **fields: Any) -> ModelSpec:
    return ModelSpec(name="m", source=ModelSource.checkpoint, location=str(location), **fields)


def shaped(**fields: Any) -> ModelSpec:
    pairs = tuple((key, json.dumps(value)) for key, value in CONFIG.items())
    return ModelSpec(name="m", source=ModelSource.shape, config=pairs, **fields)


def test_a_checkpoint_folder_resolves_to_its_config_and_its_path(folder: Path) -> None:
    assert resolve_config(checkpoint(folder)) == CONFIG
    assert weights_location(checkpoint(folder)) == str(folder)


def test_a_shape_resolves_to_the_config_it_carries() -> None:
    assert resolve_config(shaped()) == CONFIG
    with pytest.raises(ValueError, match="source shape has random weights; m is one"):
        weights_location(shaped())


@pytest.mark.parametrize("name", ["org/name", "Qwen/Qwen3-30B-A3B", "a.b/c_d-1.5"])
def test_a_hub_name_is_left_to_the_engine(name: str) -> None:
    assert resolve_config(checkpoint(name)) is None
    assert weights_location(checkpoint(name)) == name


@pytest.mark.parametrize("location", ["", "name", "/no/such/folder", "./a/b", "a/b/c", "../x", "a/-b"])  # fmt: skip
def test_neither_a_folder_nor_a_hub_name_is_refused(location: str) -> None:
    with pytest.raises(ValueError, match="existing folder or a hub name org/name; got"):
        resolve_config(checkpoint(location))


def cut(name: str) -> Callable[[Path], object]:
    """What an interrupted copy leaves."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-3])


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


INDEX = json.dumps({"weight_map": {"a": WEIGHTS, "b": "model-2.safetensors"}}).encode()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(remove("config.json"), "needs config.json", id="no config"),
        pytest.param(remove(WEIGHTS), r"needs \*.safetensors", id="no weights"),
        pytest.param(cut("config.json"), "not readable as JSON", id="a config cut short"),
        pytest.param(write("config.json", b"\xff\xfe\x00"), "not readable as JSON", id="a binary config"),
        pytest.param(write("config.json", b"[1]"), "must hold a JSON object; got a list", id="a list"),
        pytest.param(cut(WEIGHTS), r"must have \d+ bytes by its header, has \d+", id="weights cut short"),
        pytest.param(write(WEIGHTS, b""), "no header fits its 0 bytes", id="an empty file"),
        pytest.param(write(WEIGHTS, b"version https://git-lfs.github.com/spec/v1"), "no header fits", id="a Git LFS pointer"),
        pytest.param(write(WEIGHTS, (5).to_bytes(8, "little") + b"hello"), "unreadable header", id="no JSON"),
        pytest.param(write(WEIGHTS, (8).to_bytes(8, "little") + b'{"a": 1}'), "unreadable header", id="other JSON"),
        pytest.param(write("model.safetensors.index.json", INDEX), "names model-2.safetensors", id="a missing shard"),
        pytest.param(write("model.safetensors.index.json", b"{}"), "must hold a weight_map", id="an empty index"),
    ],
)  # fmt: skip
def test_a_broken_checkpoint_is_refused_with_what_is_wrong(
    folder: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(folder)
    with pytest.raises(ValueError, match=message):
        resolve_config(checkpoint(folder))


def test_widening_comes_before_overrides(folder: Path) -> None:
    overrides = (("num_layers", "1"), ("top_k", "4"))
    config = resolve_config(checkpoint(folder, widen_hidden=2, widen_heads=4, overrides=overrides))
    assert config is not None
    assert (config["hidden_size"], config["num_attention_heads"]) == (64, 16)
    assert (config["num_hidden_layers"], config["num_experts_per_tok"]) == (1, 4)
    assert config["tie_word_embeddings"] is False


def test_layers_with_weights_can_be_left_out_but_not_added(folder: Path) -> None:
    overrides = (("num_layers", "3"),)
    with pytest.raises(ValueError, match=r"num_layers 3 exceeds the 2 with weights; use 1..2"):
        resolve_config(checkpoint(folder, overrides=overrides))
    assert resolve_config(shaped(overrides=overrides)) == {**CONFIG, "num_hidden_layers": 3}


def test_an_embedded_model_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="no embedded model 'middle'; use one of target"):
        resolve_config(ModelSpec(name="m", source=ModelSource.embedded, location="middle"))


@pytest.mark.parametrize("name", sources.EMBEDDED_NAMES)
def test_a_packaged_model_holds_as_many_values_as_its_shape_says(name: str) -> None:
    spec = ModelSpec(name=name, source=ModelSource.embedded, location=name)
    if not (sources.EMBEDDED / name).is_dir():
        pytest.skip("the embedded pair is not trained yet")
    stored = load_file(Path(weights_location(spec)) / WEIGHTS)
    shape = shape_of(resolve_config(spec) or {})
    assert sum(tensor.numel() for tensor in stored.values()) == shape.total_params


def test_an_embedded_model_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not there; reinstall, or run python -m jobs"):
        sources.embedded_folder("target", tmp_path)


def test_a_digest_names_the_content_and_not_the_folder(tmp_path: Path) -> None:
    one, other = (checkpoint_at(tmp_path / name) for name in ("a", "b"))
    assert content_digest(one) == content_digest(other) != ""
    file = Path(other.location) / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert content_digest(one) != content_digest(other)


def test_a_shape_has_no_digest() -> None:
    assert content_digest(shaped()) == ""


def checkpoint_at(folder: Path) -> ModelSpec:
    """A copy of the packaged draft."""
    shutil.copytree(sources.EMBEDDED / "draft", folder)
    return ModelSpec(name="mine", source=ModelSource.checkpoint, location=str(folder))
