"""How many parameters each block of a model has, as transformers 5.23 builds it.

One function per kind of block; `config` is a Hugging Face config as a plain mapping. Buffers, such
as DeepSeek-V3's correction bias of one value per expert, are not parameters and are not counted.
"""

from __future__ import annotations

from moesd_dist.models.families import (
    LATENT_ATTENTION,
    Config,
    expert_width,
    family,
    integer,
    is_moe,
    num_experts,
    shared_width,
)


def linear(inputs: int, outputs: int, *, bias: bool = False) -> int:
    return inputs * outputs + outputs * bias


def gated_mlp(hidden: int, width: int, *, bias: bool = False) -> int:
    """Gate, up and down projections."""
    return 2 * linear(hidden, width, bias=bias) + linear(width, hidden, bias=bias)


def dense_mlp(config: Config) -> int:
    """The feed-forward block of a layer without experts."""
    hidden = integer(config, "hidden_size")
    if family(config) == "opt":
        width, bias = integer(config, "ffn_dim"), bool(config.get("enable_bias", True))
        return linear(hidden, width, bias=bias) + linear(width, hidden, bias=bias)
    return gated_mlp(hidden, integer(config, "intermediate_size"), bias=_mlp_bias(config))


def _mlp_bias(config: Config) -> bool:
    return family(config) in ("llama", "deepseek_v2") and bool(config.get("mlp_bias", False))


def routed_expert(config: Config) -> int:
    """One routed expert; 0 for a dense model."""
    if not is_moe(config):
        return 0
    return gated_mlp(integer(config, "hidden_size"), expert_width(config))


def beside_experts(config: Config) -> int:
    """What an MoE block holds besides its routed experts: router, shared experts, their gate."""
    hidden, width = integer(config, "hidden_size"), shared_width(config)
    router = linear(hidden, num_experts(config))
    shared_gate = linear(hidden, 1) if family(config) == "qwen2_moe" else 0
    has_shared = family(config) in ("qwen2_moe", *LATENT_ATTENTION)
    return router + shared_gate + has_shared * gated_mlp(hidden, width, bias=_mlp_bias(config))


def norm(config: Config) -> int:
    """One norm over the hidden width: RMSNorm, or OPT's LayerNorm with its bias."""
    hidden = integer(config, "hidden_size")
    if family(config) != "opt":
        return hidden
    return 2 * hidden * bool(config.get("layer_norm_elementwise_affine", True))


def final_norm(config: Config) -> int:
    """OPT has one only when it normalises before each block."""
    if family(config) == "opt":
        before = config.get("do_layer_norm_before", True)
        return norm(config) * bool(before and not config.get("_remove_final_layer_norm", False))
    return norm(config)


def embedding_width(config: Config) -> int:
    """Width of the token embedding: the hidden width except in OPT-350M."""
    name = "word_embed_proj_dim" if config.get("word_embed_proj_dim") else "hidden_size"
    return integer(config, name)


def token_embedding(config: Config) -> int:
    return integer(config, "vocab_size") * embedding_width(config)


def ties_embeddings(config: Config) -> bool:
    """Whether the head uses the token embedding's weight; only OPT does unless told."""
    return bool(config.get("tie_word_embeddings", family(config) == "opt"))


def positions(config: Config) -> int:
    """OPT learns its positions, two more than it has room for."""
    if family(config) != "opt":
        return 0
    rows = integer(config, "max_position_embeddings") + 2
    return rows * integer(config, "hidden_size")


def embedding_projections(config: Config) -> int:
    """Two matrices where the embedding is narrower than the model (OPT-350M)."""
    hidden, width = integer(config, "hidden_size"), embedding_width(config)
    return 0 if width == hidden else 2 * linear(hidden, width)
