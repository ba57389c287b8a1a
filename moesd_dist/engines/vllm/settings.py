"""A point as the arguments and the environment of the vLLM engine that can measure it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import moesd_dist
from moesd_dist.engines.vllm.checkpoint import hf_overrides, materialised
from moesd_dist.engines.vllm.methods import speculative_config
from moesd_dist.models.families import LATENT_ATTENTION, family, is_known, kv_heads
from moesd_dist.models.shape import ModelShape, bytes_per_value, shape_of
from moesd_dist.models.sources import resolve_config
from moesd_dist.records import (
    Device,
    DraftMethod,
    LayoutSpec,
    ModelSpec,
    RankPlace,
    SdSpec,
    SweepPoint,
)

SEQUENCES = 256  # vLLM's own choice for most devices: one engine serves all smaller batches
LONGEST = 4  # times output_tokens: as far as a sequence may run ahead of its batch's mean
LOOPBACK = "127.0.0.1"
SLACK = 32  # tokens of context for drafts and rounding
BATCHED_TOKENS = 8192  # of one step: prompts are short, so they come in few steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What one LLM is loaded for; all batch sizes, workloads' prompts and repeats go through it."""

    target: ModelSpec
    sd: SdSpec
    gamma: int
    top_k: int | None
    output_tokens: int
    prompt_tokens_max: int
    eager: bool


def setting_of(point: SweepPoint) -> Setting:
    """Equal for points that one LLM can serve."""
    return Setting(
        target=point.target,
        sd=point.sd if point.gamma else SdSpec(),
        gamma=point.gamma,
        top_k=point.top_k,
        output_tokens=point.workload.output_tokens,
        prompt_tokens_max=point.workload.prompt_tokens_max,
        eager=runs_eager(point),
    )


def runs_eager(point: SweepPoint) -> bool:
    """Whether Python runs in every step: no graphs were captured."""
    default = "true" if point.device is Device.cpu else "false"
    return dict(point.engine_args).get("enforce_eager", default) == "true"


def in_eager_mode(point: SweepPoint) -> SweepPoint:
    """The same point for an engine without graphs; itself if its own has none."""
    if runs_eager(point):
        return point
    changed = dict(point.engine_args) | {"enforce_eager": "true"}
    return replace(point, engine_args=tuple(sorted(changed.items())))


def engine_arguments(point: SweepPoint, *, max_num_seqs: int) -> dict[str, Any]:
    """What `vllm.LLM` is called with. The baseline's differ from its SD points' in the SD alone."""
    target = target_of(point)
    place = materialised(target)
    arguments = {
        "model": place.model,
        "load_format": place.load_format,
        "skip_tokenizer_init": not place.has_tokenizer,
        "dtype": target.dtype,
        "seed": target.seed,
        "trust_remote_code": target.trust_remote_code,
        "max_model_len": max_model_len(point),
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max(BATCHED_TOKENS, max_num_seqs * (point.gamma + 1)),
        "enable_prefix_caching": False,  # every repeat pays for its own prompts
        "disable_log_stats": False,  # the counters
        # vLLM would switch it on for the baseline and some methods, off for others.
        "async_scheduling": False,
        "worker_extension_cls": "moesd_dist.engines.vllm.probe.WorkerProbe",
        **_parallel(point.layout),
        **(_cpu(point, target, max_num_seqs) if point.device is Device.cpu else {}),
        **{key: json.loads(text) for key, text in point.engine_args},
    }
    if overrides := hf_overrides(target):
        arguments["hf_overrides"] = {**overrides, **arguments.get("hf_overrides", {})}
    if (speculative := speculative_config(point)) is not None:
        arguments["speculative_config"] = speculative
    if point.gamma and point.sd.method is DraftMethod.oracle:
        extra = arguments.get("additional_config", {})
        arguments["additional_config"] = {**extra, "moesd_alpha": point.sd.alpha}
    return arguments


def environment(point: SweepPoint, place: RankPlace) -> dict[str, str]:
    """What the engine's processes see, beside what they inherit."""
    layout, alone = point.layout, point.layout.tp_size == 1
    paths = (str(Path(moesd_dist.__file__).parents[1]), os.environ.get("PYTHONPATH"))
    found = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": str(point.threads),
        # vLLM's n-gram lookup is numba's, which would give OpenMP all cores, torch included.
        "NUMBA_NUM_THREADS": str(point.threads),
        "VLLM_NO_USAGE_STATS": "1",
        # The runner whose phases the probe knows. V2, the default with Triton, computes logits inside
        # its sampler, and only some methods have it: baseline and SD would run different ones.
        "VLLM_USE_V2_MODEL_RUNNER": "0",
        # One process where one is enough: it starts in seconds and nothing is sent around.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if point.device is Device.cpu and alone else "1",
    }
    if point.device is Device.cpu and layout.tp_size * layout.dp_size > 1:
        found["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(
            map(str, range(layout.tp_size * layout.dp_size))
        )
    if place.size == 1 or place.address == LOOPBACK:
        found["VLLM_HOST_IP"] = LOOPBACK  # where its processes meet; over nodes each has its own
    if point.cpu_fixes:
        found["MOESD_VLLM_CPU_FIXES"] = "1"
    if place.size > 1:
        found |= {
            "VLLM_DP_RANK": str(place.rank),
            "VLLM_DP_RANK_LOCAL": str(place.rank if point.device is Device.cpu else 0),
            "VLLM_DP_SIZE": str(place.size),
            "VLLM_DP_MASTER_IP": place.address,
            "VLLM_DP_MASTER_PORT": str(place.port),
        }
    return found


def target_of(point: SweepPoint) -> ModelSpec:
    """The target with the point's top_k written into its config."""
    if point.top_k is None:
        return point.target
    changed = dict(point.target.overrides) | {"top_k": json.dumps(point.top_k)}
    return replace(point.target, overrides=tuple(sorted(changed.items())))


def longest_output(point: SweepPoint) -> int:
    """Tokens a sequence may write while its batch is being measured."""
    ahead = min(point.gamma + 1, LONGEST) * point.workload.output_tokens
    return min(ahead, max_model_len(point) - point.workload.prompt_tokens_max - point.gamma - 1)


def max_model_len(point: SweepPoint) -> int:
    """The same for every gamma, so that baseline and SD run with the same arguments."""
    work = point.workload
    wanted = work.prompt_tokens_max + LONGEST * work.output_tokens + SLACK
    rounded = -(-wanted // 64) * 64
    shape = known_shape(point.target)
    return min(rounded, shape.max_context) if shape else rounded


def known_shape(spec: ModelSpec | None) -> ModelShape | None:
    """None for a hub name and for families whose shape is not modelled."""
    config: Mapping[str, Any] | None = resolve_config(spec) if spec else None
    return shape_of(config) if config and is_known(config) else None


def kv_bytes(point: SweepPoint, sequences: int) -> int:
    """KV caches of target and draft for so many sequences, per device; 0 where shapes are not known."""
    specs = [point.target, *([point.sd.draft] if point.gamma and point.sd.draft else [])]
    each = sum(_kv_bytes_per_token(spec, point.layout.tp_size) for spec in specs)
    return int(each * sequences * max_model_len(point))


def _kv_bytes_per_token(spec: ModelSpec, tp_size: int) -> float:
    """Ranks share heads, and copy them where they are fewer; a latent is one for all heads."""
    config = resolve_config(spec)
    if not config or not is_known(config):
        return 0.0
    heads = 1 if family(config) in LATENT_ATTENTION else kv_heads(config)
    whole = shape_of(config).kv_bytes_per_token(bytes_per_value(spec.dtype))
    return whole / min(tp_size, heads)


def _parallel(layout: LayoutSpec) -> dict[str, Any]:
    """Data-parallel ranks are told by the environment: each is an engine of its own."""
    found: dict[str, Any] = {}
    if layout.tp_size > 1:
        found["tensor_parallel_size"] = layout.tp_size
    if layout.ep_size > 1:
        found["enable_expert_parallel"] = True
    if layout.all2all_backend:
        found["all2all_backend"] = layout.all2all_backend
    if layout.expert_placement:
        found["expert_placement_strategy"] = layout.expert_placement
    if layout.eplb:
        found["enable_eplb"] = True
        found["eplb_config"] = {"num_redundant_experts": layout.redundant_experts}
    return found


def _cpu(point: SweepPoint, target: ModelSpec, sequences: int) -> dict[str, Any]:
    """Without a size vLLM would take most of the memory; without eager mode it compiles for minutes."""
    size = kv_bytes(replace(point, target=target), sequences) or 2**30
    return {
        "enforce_eager": True,
        "kv_cache_memory_bytes": max(64 * 2**20, int(1.25 * size)),
    }
