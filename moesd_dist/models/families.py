"""What each model family calls the same thing in its Hugging Face config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

MOE_FAMILIES = ("qwen2_moe", "qwen3_moe", "mixtral", "olmoe", "deepseek_v2", "deepseek_v3")
DENSE_FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "opt")
LATENT_ATTENTION = ("deepseek_v2", "deepseek_v3")

NUM_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")

# Families without any dense layer: their general width is the experts' width.
_ALL_MOE = ("mixtral", "olmoe")

# Families whose number of key-value heads, left out, is the number of heads; the other classes
# have a default of their own that nobody would guess.
_KV_HEADS_OPTIONAL = ("llama", "olmoe")
_HEAD_DIM_WHEN_ABSENT = {"qwen3": 128}


def family(config: Config) -> str:
    """The config's `model_type`; ValueError when its shape is not known here."""
    name = config.get("model_type")
    if name not in MOE_FAMILIES + DENSE_FAMILIES:
        known = ", ".join(MOE_FAMILIES + DENSE_FAMILIES)
        raise ValueError(f"the shape of model_type {name!r} is not known; use one of {known}")
    return str(name)


def is_known(config: Config) -> bool:
    """Whether the shape of this `model_type` is modelled here."""
    return config.get("model_type") in MOE_FAMILIES + DENSE_FAMILIES


def is_moe(config: Config) -> bool:
    return family(config) in MOE_FAMILIES


def integer(config: Config, *names: str, least: int = 1) -> int:
    """The first of `names` that is set; ValueError when none is, or when it is no such integer."""
    name = next((n for n in names if config.get(n) is not None), None)
    if name is None:
        raise ValueError(f"a {family(config)} config needs {' or '.join(names)}; add it")
    value = config[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number; got {value!r}; use {least} or more")
    return value


def num_layers(config: Config) -> int:
    return integer(config, "num_hidden_layers")


def num_experts(config: Config) -> int:
    """Routed experts of one MoE layer; 0 for a dense model."""
    return integer(config, *NUM_EXPERTS) if is_moe(config) else 0


def top_k(config: Config) -> int:
    """Routed experts per token; 0 for a dense model."""
    return integer(config, "num_experts_per_tok") if is_moe(config) else 0


def expert_width(config: Config) -> int:
    """Inner width of one routed expert; 0 for a dense model."""
    if not is_moe(config):
        return 0
    name = "intermediate_size" if family(config) in _ALL_MOE else "moe_intermediate_size"
    return integer(config, name)


def num_moe_layers(config: Config) -> int:
    """Layers with a router, by the rule of each transformers class."""
    match family(config):
        case "qwen2_moe" | "qwen3_moe":
            dense = config.get("mlp_only_layers") or ()
            step = integer(config, "decoder_sparse_step") if "decoder_sparse_step" in config else 1
            return sum((i + 1) % step == 0 and i not in dense for i in range(num_layers(config)))
        case "deepseek_v2" | "deepseek_v3":
            first = integer(config, "first_k_dense_replace", least=0)
            return max(0, num_layers(config) - first)
        case "mixtral" | "olmoe":
            return num_layers(config)
        case _:
            return 0


def shared_width(config: Config) -> int:
    """Inner width of all shared experts of one layer together; 0 without any."""
    match family(config):
        case "qwen2_moe":
            return integer(config, "shared_expert_intermediate_size", least=0)
        case "deepseek_v2" | "deepseek_v3":
            return integer(config, "n_shared_experts", least=0) * expert_width(config)
        case _:
            return 0


def num_shared_experts(config: Config) -> int:
    """Shared experts in units of a routed one: Qwen2 fuses four or eight of them into one."""
    width = shared_width(config)
    return max(1, round(width / expert_width(config))) if width else 0


def kv_heads(config: Config) -> int:
    """Key-value heads of one layer; OPT has one for each query head."""
    name = "num_key_value_heads"
    absent = name not in config and family(config) in _KV_HEADS_OPTIONAL
    if absent or config.get(name, 0) is None or family(config) == "opt":
        return integer(config, "num_attention_heads")
    return integer(config, name)


def head_dim(config: Config) -> int:
    if config.get("head_dim") is not None:
        return integer(config, "head_dim")
    shared_out = integer(config, "hidden_size") // integer(config, "num_attention_heads")
    return _HEAD_DIM_WHEN_ABSENT.get(family(config), shared_out)


def check_routing(config: Config) -> None:
    """ValueError when a token asks for more experts than it can reach."""
    chosen, experts = top_k(config), num_experts(config)
    if chosen > experts:
        raise ValueError(f"top_k {chosen} exceeds num_experts {experts}; use 1..{experts}")
    groups = _groups(config)
    if experts % groups:
        raise ValueError(f"n_group {groups} does not divide num_experts {experts}; use a divisor")
    reach = experts // groups * integer(config, "topk_group") if groups > 1 else experts
    if chosen > reach:
        raise ValueError(f"top_k {chosen} exceeds the {reach} experts in reach; use 1..{reach}")


def _groups(config: Config) -> int:
    """Groups of which only `topk_group` are open to a token; 1 where routing ignores them."""
    kind = family(config)
    grouped = config.get("topk_method") == "group_limited_greedy"  # DeepSeek-V2's option
    return integer(config, "n_group") if kind == "deepseek_v3" or grouped else 1
