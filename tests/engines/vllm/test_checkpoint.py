"""What vLLM is given holds the weights that the transformers engine computes with."""

from __future__ import annotations

import importlib.util
import json
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from moesd_dist.engines.transformers.load import load_model
from moesd_dist.engines.vllm.checkpoint import hf_overrides, materialised
from moesd_dist.models.sources import EMBEDDED
from moesd_dist.records import ModelSource, ModelSpec, WorkloadSpec
from moesd_dist.workloads.prompts import draw_prompts

CPU = torch.device("cpu")
OUTPUT = 24
WIDE = {"widen_hidden": 2, "widen_expert": 2, "widen_heads": 2}
TWO_LAYERS = (("num_layers", "2"), ("top_k", "4"))
SHAPES = ["tiny_qwen2_moe", "tiny_qwen3_moe", "tiny_mixtral", "tiny_olmoe",
          "tiny_deepseek_v2", "tiny_deepseek_v3", "tiny_dense", "tiny_opt"]  # fmt: skip
# vLLM's latent attention on a CPU takes only the sizes of the published models.
LATENT = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM")


def embedded(location: str = "target", **changes: Any) -> ModelSpec:
    plain = {"name": location, "location": location, "dtype": "float32"}
    return ModelSpec(source=ModelSource.embedded, **(plain | changes))


def loaded(folder: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


def config_in(folder: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text())
    return config


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(WIDE, id="widened"),
        pytest.param(WIDE | {"dtype": "bfloat16"}, id="widened in bfloat16"),
        pytest.param({"widen_expert": 4}, id="wider experts alone"),
        pytest.param({"overrides": TWO_LAYERS}, id="fewer layers"),
        pytest.param(WIDE | {"overrides": TWO_LAYERS}, id="widened with fewer layers"),
    ],
)
def test_the_folder_holds_the_tensors_of_the_transformers_engine(tmp_path, changes):
    spec = embedded(**changes)
    exported = loaded(materialised(spec, tmp_path).model).to(getattr(torch, spec.dtype))
    expected = load_model(spec, CPU).state_dict()
    found = exported.state_dict()
    assert list(found) == list(expected)
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name


def test_nothing_is_written_for_weights_that_stay_as_they_are(tmp_path):
    place = materialised(embedded("draft"), tmp_path)
    assert (place.model, place.load_format) == (str(EMBEDDED / "draft"), "auto")
    assert place.has_tokenizer
    assert not list(tmp_path.iterdir())


def test_overrides_that_leave_the_weights_alone_link_them(tmp_path):
    place = materialised(embedded(overrides=(("top_k", "4"),)), tmp_path)
    weights = Path(place.model) / "model.safetensors"
    assert weights.readlink() == EMBEDDED / "target" / "model.safetensors"
    assert config_in(place.model)["num_experts_per_tok"] == 4
    assert place.has_tokenizer


def test_a_folder_is_written_once_and_shared_by_equal_content(tmp_path):
    first = materialised(embedded(**WIDE), tmp_path)
    written = {f: f.stat().st_mtime_ns for f in Path(first.model).iterdir()}
    assert materialised(embedded(name="another", **WIDE), tmp_path) == first
    assert {f: f.stat().st_mtime_ns for f in Path(first.model).iterdir()} == written
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("other", [{"dtype": "bfloat16"}, {"widen_expert": 4}, {"overrides": (("top_k", "4"),)}])  # fmt: skip
def test_other_content_is_another_folder(tmp_path, other):
    first, second = (materialised(embedded(**(WIDE | c)), tmp_path) for c in ({}, other))
    assert first.model != second.model


def test_what_a_killed_process_left_is_not_taken_for_complete(tmp_path):
    name = Path(materialised(embedded(**WIDE), tmp_path / "elsewhere").model).name
    left = tmp_path / f".{name}-killed"
    left.mkdir()
    (left / "model-00001-of-00005.safetensors").write_bytes(b"half")
    place = materialised(embedded(**WIDE), tmp_path)
    assert Path(place.model).name == name
    assert loaded(place.model).config.hidden_size == 256


def test_writers_at_the_same_time_agree_on_one_folder(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        places = list(pool.map(lambda _: materialised(embedded(**WIDE), tmp_path), range(3)))
    assert [str(folder) for folder in tmp_path.iterdir()] == [places[0].model]
    assert len(set(places)) == 1


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file can grow beyond 1 MB, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match=r"target must be written below .* set MOESD_CACHE") as caught:
        materialised(embedded(**WIDE), tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="set MOESD_CACHE to another folder"):
        materialised(embedded(**WIDE), tmp_path / "file" / "cache")


def test_a_damaged_cache_says_what_to_delete(tmp_path):
    folder = Path(materialised(embedded(**WIDE), tmp_path).model)
    next(folder.glob("*.safetensors")).unlink()
    with pytest.raises(ValueError, match=f"delete {folder}"):
        materialised(embedded(**WIDE), tmp_path)


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("MOESD_CACHE", str(tmp_path))
    place = materialised(embedded(overrides=(("top_k", "4"),)))
    assert Path(place.model).parent == tmp_path / "vllm"


def test_a_hub_name_is_left_to_vllm_with_its_overrides(tmp_path):
    spec = ModelSpec(
        name="hub", source=ModelSource.checkpoint, location="org/model", overrides=TWO_LAYERS
    )
    assert materialised(spec, tmp_path).model == "org/model"
    assert hf_overrides(spec) == {"num_hidden_layers": 2, "num_experts_per_tok": 4}
    assert hf_overrides(embedded(overrides=TWO_LAYERS)) == {}


def test_a_widened_hub_name_is_refused(tmp_path):
    spec = ModelSpec(
        name="hub", source=ModelSource.checkpoint, location="org/model", widen_hidden=2
    )
    with pytest.raises(ValueError, match="hf download org/model"):
        materialised(spec, tmp_path)


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_a_config_alone(tmp_path, kit, name):
    place = materialised(kit.spec_of(name), tmp_path)
    assert (place.load_format, place.has_tokenizer) == ("dummy", False)
    assert [f.name for f in Path(place.model).iterdir()] == ["config.json"]
    config = config_in(place.model)
    assert config["architectures"][0].endswith("ForCausalLM")
    assert config.get("topk_method") in {None, "greedy", "noaux_tc"}


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED / "target")
    work = WorkloadSpec(
        name="stdlib_code", prompt_tokens_min=16, prompt_tokens_max=48, output_tokens=OUTPUT
    )
    return draw_prompts(work, count=8, repeat=0, encode=tokenizer.encode, vocab_size=2048)


@pytest.fixture(scope="module")
def vllm_tokens(prompts, tmp_path_factory) -> Iterator[Callable[[ModelSpec], list[list[int]]]]:
    """Greedy continuations by an engine of vLLM in this process, one engine a call."""
    root = tmp_path_factory.mktemp("vllm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        patch.setenv("VLLM_NO_USAGE_STATS", "1")
        patch.setenv("VLLM_LOGGING_LEVEL", "ERROR")
        patch.setenv("OMP_NUM_THREADS", "1")
        from vllm import LLM, SamplingParams

        def tokens(spec: ModelSpec) -> list[list[int]]:
            place = materialised(spec, root)
            engine = LLM(
                model=place.model, load_format=place.load_format, dtype=spec.dtype,
                enforce_eager=True, max_model_len=256, max_num_seqs=64,
                kv_cache_memory_bytes=64 << 20, enable_prefix_caching=False,
                skip_tokenizer_init=not place.has_tokenizer,
            )  # fmt: skip
            how = SamplingParams(
                temperature=0, max_tokens=OUTPUT, ignore_eos=True, detokenize=False
            )
            asked = [{"prompt_token_ids": prompt} for prompt in prompts]
            outputs = engine.generate(asked, how, use_tqdm=False)
            return [list(output.outputs[0].token_ids) for output in outputs]

        yield tokens


@needs_vllm
@pytest.mark.parametrize(
    ("spec", "same_as"),
    [
        pytest.param(embedded(), embedded(), id="target"),
        pytest.param(embedded(**WIDE), embedded(), id="a widened target writes what it wrote"),
        pytest.param(embedded(overrides=TWO_LAYERS), embedded(overrides=TWO_LAYERS), id="2 layers"),
        pytest.param(embedded("draft"), embedded("draft"), id="draft"),
    ],
)
def test_vllm_writes_what_transformers_writes(vllm_tokens, prompts, kit, spec, same_as):
    model = load_model(same_as, CPU)
    model.config._attn_implementation = "sdpa"
    assert vllm_tokens(spec) == kit.generate(model, prompts, OUTPUT)


@needs_vllm
def test_vllm_runs_a_shape_of_a_family_that_needs_an_extra_key(vllm_tokens, kit):
    spec = kit.spec_of("tiny_deepseek_v3", vocab_size=2048, **LATENT)
    assert {len(tokens) for tokens in vllm_tokens(spec)} == {OUTPUT}
