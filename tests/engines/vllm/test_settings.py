"""A point as vLLM's arguments: every method, layout and option, and no more than that."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moesd_dist.engines.vllm.methods import speculative_config
from moesd_dist.engines.vllm.settings import (
    engine_arguments,
    environment,
    longest_output,
    max_model_len,
    setting_of,
)
from moesd_dist.models.sources import EMBEDDED
from moesd_dist.records import (
    Device,
    DraftMethod,
    LayoutSpec,
    ModelSource,
    ModelSpec,
    Protocol,
    RankPlace,
    SdSpec,
    SweepPoint,
)
from tests.engines.vllm.points import DRAFT, FIXED, PAIR, TARGET, WORK, point

DRAFT_FOLDER = str(EMBEDDED / "draft")
OURS = "moesd_dist.engines.vllm.proposers"
NGRAM = SdSpec(method=DraftMethod.ngram, ngram_min=1, ngram_max=3)
ORACLE = SdSpec(method=DraftMethod.oracle, alpha=0.7)
ALONE = RankPlace()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESD_CACHE", str(tmp_path))


def arguments(one: SweepPoint) -> dict[str, Any]:
    return engine_arguments(one, max_num_seqs=256)


@pytest.mark.parametrize(
    ("sd", "expected"),
    [
        pytest.param(PAIR, {"method": "draft_model", "model": DRAFT_FOLDER}, id="draft_model"),
        pytest.param(
            SdSpec(method=DraftMethod.eagle, draft=DRAFT),
            {"method": "eagle", "model": DRAFT_FOLDER},
            id="eagle",
        ),
        pytest.param(
            SdSpec(method=DraftMethod.eagle3, draft=DRAFT),
            {"method": "eagle3", "model": DRAFT_FOLDER},
            id="eagle3",
        ),
        pytest.param(
            SdSpec(method=DraftMethod.medusa, draft=DRAFT),
            {"method": "medusa", "model": DRAFT_FOLDER},
            id="medusa",
        ),
        pytest.param(
            NGRAM,
            {"method": "ngram", "prompt_lookup_min": 1, "prompt_lookup_max": 3},
            id="ngram",
        ),
        pytest.param(SdSpec(method=DraftMethod.suffix), {"method": "suffix"}, id="suffix"),
        pytest.param(SdSpec(method=DraftMethod.mtp), {"method": "mtp"}, id="mtp"),
        pytest.param(
            ORACLE, {"method": "custom_class", "model": f"{OURS}.OracleProposer"}, id="oracle"
        ),
        pytest.param(
            FIXED, {"method": "custom_class", "model": f"{OURS}.FixedProposer"}, id="fixed"
        ),
        pytest.param(
            replace(NGRAM, synthetic_acceptance=(0.8,)),
            {
                "method": "ngram",
                "prompt_lookup_min": 1,
                "prompt_lookup_max": 3,
                "rejection_sample_method": "synthetic",
                "synthetic_acceptance_rates": pytest.approx([0.8, 0.64, 0.512]),
            },
            id="one conditional rate becomes its powers",
        ),
        pytest.param(
            replace(NGRAM, synthetic_acceptance=(0.9, 0.5)),
            {
                "method": "ngram",
                "prompt_lookup_min": 1,
                "prompt_lookup_max": 3,
                "rejection_sample_method": "synthetic",
                "synthetic_acceptance_rates": pytest.approx([0.9, 0.45, 0.225]),
            },
            id="the last rate goes on",
        ),
        pytest.param(
            replace(FIXED, schedule=((1, 8, 3), (9, 64, 1))),
            {
                "method": "custom_class",
                "model": f"{OURS}.FixedProposer",
                "num_speculative_tokens_per_batch_size": [[1, 8, 3], [9, 64, 1]],
            },
            id="a schedule",
        ),
        pytest.param(
            replace(PAIR, options=(("draft_sample_method", '"probabilistic"'), ("model", '"x"'))),
            {"method": "draft_model", "model": "x", "draft_sample_method": "probabilistic"},
            id="options are passed on and win",
        ),
    ],
)
def test_a_method_becomes_vllms_speculative_config(sd, expected):
    assert speculative_config(point(sd=sd)) == expected | {"num_speculative_tokens": 3}


def test_the_baseline_has_no_speculative_config():
    assert speculative_config(point(gamma=0)) is None
    assert "speculative_config" not in arguments(point().baseline)


def test_a_draft_without_weights_beside_a_target_with_them_is_said_to_be_one():
    config = (EMBEDDED / "draft" / "config.json").read_text()
    items = tuple((key, json.dumps(value)) for key, value in json.loads(config).items())
    shape = ModelSpec(name="shape", source=ModelSource.shape, config=items)
    found = speculative_config(point(sd=replace(PAIR, draft=shape)))
    assert found is not None
    assert found["draft_load_config"] == {"load_format": "dummy"}


def test_overrides_of_a_draft_by_hub_name_are_refused_with_the_way_out():
    hub = ModelSpec(
        name="head", source=ModelSource.checkpoint, location="org/head", overrides=(("top_k", "2"),)
    )
    with pytest.raises(ValueError, match="head has some; download it and give the folder"):
        speculative_config(point(sd=replace(PAIR, draft=hub)))


@pytest.mark.parametrize(
    ("sd", "differ"),
    [
        pytest.param(FIXED, {"speculative_config"}, id="fixed"),
        pytest.param(NGRAM, {"speculative_config"}, id="ngram"),
        pytest.param(PAIR, {"speculative_config", "kv_cache_memory_bytes"}, id="the draft's cache"),
        pytest.param(ORACLE, {"speculative_config", "additional_config"}, id="the oracle's alpha"),
    ],
)
def test_baseline_and_sd_differ_in_sd_only(sd, differ):
    """The draft's cache comes on top: the target's has the same size in both."""
    base, ours = (engine_arguments(p, max_num_seqs=1024) for p in (point().baseline, point(sd=sd)))
    assert {key for key in base | ours if base.get(key) != ours.get(key)} == differ
    assert ours["kv_cache_memory_bytes"] >= base["kv_cache_memory_bytes"]


def test_the_oracle_is_told_its_alpha_beside_what_the_user_tells():
    extra = (("additional_config", '{"mine": 1}'),)
    assert arguments(point(sd=ORACLE, engine_args=extra))["additional_config"] == {
        "mine": 1,
        "moesd_alpha": 0.7,
    }


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"temperature": 1.0}, id="temperature"),
        pytest.param({"batch_size": 7}, id="batch size"),
        pytest.param({"protocol": Protocol(repeats=9)}, id="protocol"),
        pytest.param({"workload": replace(WORK, seed=5)}, id="prompts"),
    ],
)
def test_what_one_llm_can_serve_is_one_setting_of_the_same_arguments(changes):
    assert setting_of(point(**changes)) == setting_of(point())
    assert arguments(point(**changes)) == arguments(point())


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"gamma": 2}, id="gamma"),
        pytest.param({"sd": FIXED}, id="method"),
        pytest.param({"top_k": 2}, id="top_k"),
        pytest.param({"workload": replace(WORK, output_tokens=100)}, id="longer outputs"),
        pytest.param({"workload": replace(WORK, prompt_tokens_max=100)}, id="longer prompts"),
        pytest.param({"target": replace(TARGET, widen_expert=2)}, id="target"),
    ],
)
def test_what_needs_another_llm_is_another_setting(changes):
    assert setting_of(point(**changes)) != setting_of(point())


def test_points_of_all_methods_share_one_baseline_setting():
    found = {setting_of(point(sd=sd).baseline) for sd in (PAIR, NGRAM, ORACLE, FIXED)}
    found.add(setting_of(point(gamma=0)))  # a control's, which still names its SD
    assert len(found) == 1


def test_top_k_is_written_into_the_config_that_vllm_loads():
    folder = Path(arguments(point(top_k=2))["model"])
    own = json.loads((EMBEDDED / "target" / "config.json").read_text())
    changed = json.loads((folder / "config.json").read_text())
    assert (own["num_experts_per_tok"], changed["num_experts_per_tok"]) == (8, 2)
    assert (folder / "model.safetensors").samefile(EMBEDDED / "target" / "model.safetensors")


def test_top_k_of_a_hub_name_is_an_override_that_keeps_the_users():
    hub = ModelSpec(name="hub", source=ModelSource.checkpoint, location="org/name")
    mine = (("hf_overrides", '{"rope_theta": 1}'),)
    found = arguments(point(target=hub, sd=FIXED, top_k=2, engine_args=mine))
    assert found["model"] == "org/name"
    assert found["hf_overrides"] == {"num_experts_per_tok": 2, "rope_theta": 1}


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        pytest.param(LayoutSpec(), {}, id="one process"),
        pytest.param(LayoutSpec(tp_size=4), {"tensor_parallel_size": 4}, id="TP"),
        pytest.param(
            LayoutSpec(tp_size=2, ep_size=2),
            {"tensor_parallel_size": 2, "enable_expert_parallel": True},
            id="TP and EP",
        ),
        pytest.param(
            LayoutSpec(dp_size=2, ep_size=2),
            {"enable_expert_parallel": True},
            id="ranks are told by the environment",
        ),
        pytest.param(
            LayoutSpec(
                dp_size=16,
                ep_size=16,
                all2all_backend="deepep_low_latency",
                expert_placement="round_robin",
                eplb=True,
                redundant_experts=32,
            ),
            {
                "enable_expert_parallel": True,
                "all2all_backend": "deepep_low_latency",
                "expert_placement_strategy": "round_robin",
                "enable_eplb": True,
                "eplb_config": {"num_redundant_experts": 32},
            },
            id="everything a layout can say",
        ),
    ],
)
def test_a_layout_becomes_vllms_parallelism(layout, expected):
    one = point(device=Device.cuda, layout=layout)
    plain = arguments(point(device=Device.cuda))
    assert {k: v for k, v in arguments(one).items() if k not in plain} == expected


def test_users_arguments_are_passed_on_and_win():
    given = (("max_num_batched_tokens", "4096"), ("moe_backend", '"triton"'))
    found = arguments(point(engine_args=given))
    assert (found["max_num_batched_tokens"], found["moe_backend"]) == (4096, "triton")


def test_a_processor_is_neither_compiled_for_nor_filled():
    found = arguments(point())
    assert found["enforce_eager"] is True
    assert found["kv_cache_memory_bytes"] < 2**30
    assert {"enforce_eager", "kv_cache_memory_bytes"}.isdisjoint(
        arguments(point(device=Device.cuda))
    )


def test_a_sequence_may_run_ahead_of_its_batch_within_the_context():
    one = point()  # 24 + 4 x 12 + 32 tokens, in whole blocks of 64
    assert max_model_len(one) == 128
    assert longest_output(one.baseline) == 12
    assert longest_output(one) == 48
    assert longest_output(point(gamma=60)) == 128 - 24 - 60 - 1


def test_a_context_is_no_longer_than_the_models():
    assert max_model_len(point(workload=replace(WORK, output_tokens=1000))) == 2048


@pytest.mark.parametrize(
    ("changes", "place", "expected"),
    [
        pytest.param(
            {},
            ALONE,
            {"OMP_NUM_THREADS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
            id="one process on a CPU",
        ),
        pytest.param({"threads": 2}, ALONE, {"NUMBA_NUM_THREADS": "2"}, id="threads"),
        pytest.param({"cpu_fixes": True}, ALONE, {"MOESD_VLLM_CPU_FIXES": "1"}, id="repairs"),
        pytest.param(
            {"layout": LayoutSpec(tp_size=2)},
            ALONE,
            {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_CPU_OMP_THREADS_BIND": "0|1"},
            id="two workers on a CPU, a core for each",
        ),
        pytest.param(
            {"layout": LayoutSpec(dp_size=2)},
            RankPlace(rank=1, size=2, address="10.0.0.1", port=29500),
            {
                "VLLM_DP_RANK": "1",
                "VLLM_DP_RANK_LOCAL": "1",
                "VLLM_DP_SIZE": "2",
                "VLLM_DP_MASTER_IP": "10.0.0.1",
                "VLLM_DP_MASTER_PORT": "29500",
            },
            id="the second of two ranks",
        ),
        pytest.param(
            {"layout": LayoutSpec(dp_size=16), "device": Device.cuda},
            RankPlace(rank=9, size=16, address="10.0.0.1", port=29500),
            {"VLLM_DP_RANK": "9", "VLLM_DP_RANK_LOCAL": "0", "VLLM_DP_SIZE": "16"},
            id="a rank sees its own GPU alone",
        ),
        pytest.param(
            {"device": Device.cuda}, ALONE, {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}, id="a GPU"
        ),
    ],
)
def test_the_environment_says_threads_ranks_and_repairs(changes, place, expected):
    found = environment(point(**changes), place)
    assert expected.items() <= found.items()
    assert ("VLLM_DP_SIZE" in found) is (place.size > 1)
    assert ("MOESD_VLLM_CPU_FIXES" in found) is point(**changes).cpu_fixes


def test_the_engines_process_finds_this_package_and_what_the_user_put_beside_it(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    ours, users = environment(point(), ALONE)["PYTHONPATH"].split(":")
    assert (Path(ours) / "moesd_dist").is_dir()
    assert users == "/somewhere"
