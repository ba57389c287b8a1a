"""A rank loads its experts and everything else, from any checkpoint, and no more than that."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from moesd_dist.engines.transformers.experts_path import experts_modules, install
from moesd_dist.engines.transformers.load import load_model, num_experts_of
from moesd_dist.engines.transformers.local_experts import (
    LocalExperts,
    expert_layers,
    weight_bytes_of,
)
from moesd_dist.engines.transformers.routing import RoutingRecorder
from moesd_dist.records import ModelSource, ModelSpec
from moesd_dist.theory.expert_parallel.placement import EMPTY, Placement, linear, round_robin
from tests.engines.stored_models import checkpoint, save

CPU = torch.device("cpu")
FAMILIES = ["qwen2_moe", "qwen3_moe", "mixtral", "olmoe", "deepseek_v2", "deepseek_v3"]
# As transformers saves and the hub has them: each expert apart, in one file or in several; and as
# the modules hold them: all experts of a layer in one tensor.
FORMS = ["apart", "shards", "fused"]


@pytest.fixture(scope="session")
def stored(tmp_path_factory, kit):
    """Writes a tiny model of a family in a form, once a session; returns its spec."""
    root = tmp_path_factory.mktemp("stored")

    def write(family: str, form: str, **changes) -> ModelSpec:
        folder = root / "-".join([family, form, *map(str, changes.values())])
        if not folder.exists():
            save(load_model(kit.spec_of(f"tiny_{family}", **changes), CPU), folder, form)
        return checkpoint(folder)

    return write


def names_in(folder: str) -> set[str]:
    names = set()
    for path in Path(folder).glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            names |= set(file.keys())
    return names


def assert_is_share(part, whole, logical) -> None:
    """Routed experts are those of `logical`, zero where EMPTY; everything else is all there."""
    everything = dict(whole.named_parameters()) | dict(whole.named_buffers())
    own = dict(part.named_parameters()) | dict(part.named_buffers())
    assert set(own) == set(everything)
    ours, theirs = experts_modules(part), experts_modules(whole)
    routed = {
        id(p): row for m, row in zip(ours, logical.tolist(), strict=True) for p in m.parameters()
    }
    assert [m.num_experts for m in ours] == [logical.shape[1]] * len(theirs)
    for name, tensor in own.items():
        wanted = everything[name]
        if id(tensor) in routed:
            row = routed[id(tensor)]
            wanted = torch.stack([0 * wanted[0] if e == EMPTY else wanted[e] for e in row])
        assert torch.equal(tensor, wanted), name
        assert (tensor.dtype, tensor.requires_grad) == (wanted.dtype, False)


def assert_ranks_have_shares(spec: ModelSpec, placement: Placement) -> None:
    whole = load_model(spec, CPU)
    for rank in range(placement.ranks):
        logical = placement.of_rank(rank)
        local = LocalExperts(logical=logical, num_experts=placement.num_experts)
        part = load_model(spec, CPU, local)
        assert_is_share(part, whole, logical)
        assert num_experts_of(part) == num_experts_of(whole) == placement.num_experts


@pytest.mark.parametrize("ranks", [pytest.param(3, id="3 with padding"), 2, 4])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_rank_has_its_share_of_a_checkpoint(stored, family, form, ranks):
    spec = stored(family, form)
    layers, num_experts = expert_layers(spec)
    assert (layers, num_experts) == (1 if "deepseek" in family else 2, 8)
    assert_ranks_have_shares(spec, linear(num_experts, ranks=ranks, layers=layers))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_forms_are_what_they_are_called(stored, family):
    apart, shards, fused = (stored(family, form).location for form in FORMS)
    assert names_in(apart) == names_in(shards)
    assert len(list(Path(shards).glob("*.safetensors"))) > 2
    assert any(".experts.7." in name for name in names_in(apart))
    assert {n.rsplit(".", 1)[1] for n in names_in(fused) if ".experts." in n} == {
        "gate_up_proj",
        "down_proj",
    }


@pytest.mark.parametrize("form", FORMS)
def test_layers_may_place_their_experts_differently_and_in_any_order(stored, form):
    rows = np.array([[7, 0, EMPTY, 3, 2, 1, 6, 5, 4], [5, 3, 1, 0, 2, 7, 6, 4, EMPTY]])
    placement = Placement(ranks=3, num_experts=8, physical_to_logical=rows)
    assert_ranks_have_shares(stored("mixtral", form), placement)


@pytest.mark.parametrize("form", FORMS)
def test_a_rank_may_have_nothing_but_padding(stored, form):
    assert_ranks_have_shares(stored("olmoe", form), linear(8, ranks=9, layers=2))


def test_an_expert_may_lie_on_several_ranks(stored):
    rows = np.array([[0, 1, 2, 3, 4, 0, 5, 6, 7, 2], [0, 1, 2, 3, 4, 4, 5, 6, 7, 1]])
    placement = Placement(ranks=2, num_experts=8, physical_to_logical=rows)
    assert_ranks_have_shares(stored("qwen3_moe", "apart"), placement)


def test_a_tied_head_stays_tied(stored):
    spec = stored("qwen3_moe", "apart", tie_word_embeddings=True)
    part = load_model(spec, CPU, _half(2))
    assert part.lm_head.weight is part.model.embed_tokens.weight


@pytest.mark.parametrize("form", FORMS)
def test_weights_become_the_dtype_that_was_asked_for(stored, form):
    spec = replace(stored("qwen2_moe", form), dtype="bfloat16")
    assert_ranks_have_shares(spec, round_robin(8, ranks=2, layers=2))


@pytest.mark.parametrize("form", FORMS)
def test_layers_left_out_are_not_loaded(stored, form):
    spec = replace(stored("qwen3_moe", form), overrides=(("num_layers", "1"),))
    assert_ranks_have_shares(spec, linear(8, ranks=2, layers=1))


@pytest.mark.parametrize("widening", [{}, {"widen_hidden": 2, "widen_expert": 4}])
def test_the_embedded_target_is_shared_widened_or_not(widening):
    spec = ModelSpec(name="e", source=ModelSource.embedded, location="target", **widening)
    assert_ranks_have_shares(spec, round_robin(64, ranks=3, layers=4))


def test_weights_are_counted_with_their_padding(stored):
    spec = stored("qwen3_moe", "apart")
    expert = 3 * 64 * 32 * 4  # gate, up and down in float32
    whole, routed = weight_bytes_of(load_model(spec, CPU))
    assert routed == 2 * 8 * expert
    third = LocalExperts(logical=linear(8, ranks=3, layers=2).of_rank(2), num_experts=8)
    assert weight_bytes_of(load_model(spec, CPU, third)) == (
        whole - 2 * 5 * expert,
        2 * 3 * expert,
    )


def test_a_tied_head_weighs_nothing(kit):
    plain, tied = (
        weight_bytes_of(load_model(kit.spec_of("tiny_qwen3_moe", tie_word_embeddings=tie), CPU))
        for tie in (False, True)
    )
    assert (plain[0] - tied[0], plain[1]) == (128 * 64 * 4, tied[1])


def test_packed_experts_are_not_counted(kit):
    model = load_model(replace(kit.spec_of("tiny_qwen3_moe"), dtype="bfloat16"), CPU)
    if install(model, implementation="auto", recorder=RoutingRecorder(2, 8, CPU)) != "packed":
        pytest.skip("this torch lacks the packing operators")
    with pytest.raises(ValueError, match="counted before experts are packed"):
        weight_bytes_of(model)


def _half(layers: int, num_experts: int = 8) -> LocalExperts:
    placement = linear(num_experts, ranks=2, layers=layers)
    return LocalExperts(logical=placement.of_rank(0), num_experts=num_experts)


@pytest.mark.parametrize(
    ("logical", "message"),
    [
        pytest.param([[0, 1, 0]], "layer 0 has expert 0 twice", id="twice"),
        pytest.param([[0, 8]], r"got 0\.\.8", id="too large"),
        pytest.param([[0, -2]], r"got -2\.\.0", id="negative"),
        pytest.param([[]], r"got shape \(1, 0\)", id="no slot"),
        pytest.param([0, 1], r"got shape \(2,\)", id="no layers"),
    ],
)
def test_impossible_experts_are_refused(logical, message):
    with pytest.raises(ValueError, match=message):
        LocalExperts(logical=np.array(logical, dtype=np.int64), num_experts=8)


@pytest.mark.parametrize(("layers", "num_experts"), [(3, 8), (2, 16)])
def test_a_placement_of_another_model_is_refused(stored, layers, num_experts):
    with pytest.raises(ValueError, match="the model 2 of 8"):
        load_model(stored("mixtral", "apart"), CPU, _half(layers, num_experts))


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        pytest.param(
            "model.norm.weight", "lacks weights of the model: model.norm.weight", id="norm"
        ),
        pytest.param(
            "model.layers.1.mlp.experts.2.up_proj.weight", "lacks .*experts.2", id="expert"
        ),
    ],
)
def test_an_incomplete_checkpoint_is_refused(stored, tmp_path, lost, message):
    whole = Path(stored("qwen3_moe", "apart").location)
    with safe_open(whole / "model.safetensors", framework="pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys() if name != lost}  # noqa: SIM118
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((whole / "config.json").read_text())
    with pytest.raises(ValueError, match=message):
        load_model(checkpoint(tmp_path), CPU, _half(2))


def test_an_experts_tensor_of_another_size_is_refused(stored, tmp_path):
    whole = Path(stored("qwen3_moe", "fused").location)
    plain = json.loads((whole / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(plain | {"num_local_experts": 4}))
    (tmp_path / "model.safetensors").symlink_to(whole / "model.safetensors")
    with pytest.raises(ValueError, match=r"must start with 4 experts; it has shape \[8, 64, ..\]"):
        load_model(checkpoint(tmp_path), CPU, _half(2, num_experts=4))


def test_a_quantised_checkpoint_is_refused(stored, tmp_path):
    whole = Path(stored("deepseek_v3", "apart").location)
    plain = json.loads((whole / "config.json").read_text())
    quantised = plain | {"quantization_config": {"quant_method": "fp8"}}
    (tmp_path / "config.json").write_text(json.dumps(quantised))
    (tmp_path / "model.safetensors").symlink_to(whole / "model.safetensors")
    with pytest.raises(ValueError, match="experts of a quantised checkpoint"):
        load_model(checkpoint(tmp_path), CPU, _half(1))
