"""Parameters of one attention block, and how many values it caches for a token."""

from __future__ import annotations

from moesd_dist.models.families import LATENT_ATTENTION, Config, family, head_dim, integer, kv_heads
from moesd_dist.models.parameters import linear


def cached_values(config: Config) -> int:
    """Values that one layer of transformers 5.23 caches for one token.

    DeepSeek's layers cache before they expand the heads: the compressed latent, and the rotary key
    that all heads share.
    """
    if family(config) in LATENT_ATTENTION:
        return integer(config, "kv_lora_rank") + integer(config, "qk_rope_head_dim")
    return 2 * kv_heads(config) * head_dim(config)


def attention(config: Config) -> int:
    """Projections and inner norms of one attention block."""
    latent = family(config) in LATENT_ATTENTION
    return latent_attention(config) if latent else grouped_attention(config)


def grouped_attention(config: Config) -> int:
    """Query heads that share key-value heads, as in every family but DeepSeek's."""
    hidden, dim = integer(config, "hidden_size"), head_dim(config)
    queries, keys = dim * integer(config, "num_attention_heads"), dim * kv_heads(config)
    inputs_bias, output_bias = _attention_biases(config)
    query = linear(hidden, queries, bias=inputs_bias)
    key_and_value = 2 * linear(hidden, keys, bias=inputs_bias)
    output = linear(queries, hidden, bias=output_bias)
    return query + key_and_value + output + _query_key_norms(config)


def _attention_biases(config: Config) -> tuple[bool, bool]:
    """Whether the query, key and value projections have a bias, and the output projection."""
    match family(config):
        case "qwen2":
            return True, False
        case "qwen2_moe":
            return bool(config.get("qkv_bias", True)), False
        case "mistral" | "mixtral":
            return False, False
        case "opt":
            return (bool(config.get("enable_bias", True)),) * 2
        case _:
            return (bool(config.get("attention_bias", False)),) * 2


def _query_key_norms(config: Config) -> int:
    """Qwen3 normalises each head with one shared weight, OLMoE all heads at once."""
    match family(config):
        case "qwen3" | "qwen3_moe":
            return 2 * head_dim(config)
        case "olmoe":
            hidden, heads = integer(config, "hidden_size"), integer(config, "num_attention_heads")
            return hidden + hidden // heads * kv_heads(config)
        case _:
            return 0


def latent_attention(config: Config) -> int:
    """DeepSeek's multi-head latent attention: keys and values through one narrow latent."""
    hidden, heads = integer(config, "hidden_size"), integer(config, "num_attention_heads")
    latent, rope = integer(config, "kv_lora_rank"), integer(config, "qk_rope_head_dim")
    nope, value = integer(config, "qk_nope_head_dim"), integer(config, "v_head_dim")
    bias = bool(config.get("attention_bias", False))
    down = linear(hidden, latent + rope, bias=bias) + latent  # and the latent's norm
    up = linear(latent, heads * (nope + value))
    output = linear(heads * value, hidden, bias=bias)
    return _latent_queries(config, heads * (nope + rope), bias=bias) + down + up + output


def _latent_queries(config: Config, queries: int, *, bias: bool) -> int:
    """`q_lora_rank` null means a plain projection; left out, nobody can tell, so it is required."""
    hidden = integer(config, "hidden_size")
    if "q_lora_rank" in config and config["q_lora_rank"] is None:
        return linear(hidden, queries)
    rank = integer(config, "q_lora_rank")
    return linear(hidden, rank, bias=bias) + rank + linear(rank, queries)
