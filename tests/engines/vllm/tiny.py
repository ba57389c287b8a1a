"""Tiny random checkpoints that vLLM loads: a MoE of every family, a dense draft, drafters' configs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VOCABULARY = 512
# The CPU's attention needs heads of 32 at least.
COMMON: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 2048,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "tie_word_embeddings": False,
}
# The CPU's MLA wants DeepSeek's own ranks and head sizes; without noaux_tc vLLM misses the router's bias.
DEEPSEEK: Mapping[str, Any] = {
    "num_key_value_heads": 4,
    "moe_intermediate_size": 64,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 512,
    "q_lora_rank": 64,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "n_group": 2,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "num_nextn_predict_layers": 1,
}
# Class prefix in transformers and what differs from COMMON.
MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "qwen2_moe": (
        "Qwen2Moe",
        {
            "moe_intermediate_size": 64,
            "shared_expert_intermediate_size": 64,
            "num_experts": 8,
            "num_experts_per_tok": 2,
        },
    ),
    "qwen3_moe": (
        "Qwen3Moe",
        {"head_dim": 32, "moe_intermediate_size": 64, "num_experts": 16, "num_experts_per_tok": 2},
    ),
    "mixtral": ("Mixtral", {"num_local_experts": 8, "num_experts_per_tok": 2}),
    "olmoe": ("Olmoe", {"intermediate_size": 64, "num_experts": 8, "num_experts_per_tok": 2}),
    # transformers writes no weights for the MTP layer: method mtp needs load_format=dummy.
    "deepseek_v3": ("DeepseekV3", DEEPSEEK),
    "qwen3": ("Qwen3", {"num_hidden_layers": 1, "head_dim": 32}),
}
LLAMA = {
    **COMMON,
    "num_hidden_layers": 1,
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "dtype": "float32",
}
# Configs alone: draft_load_config={"load_format": "dummy"}; medusa ignores that and needs the
# engine's own load_format=dummy.
DRAFTERS: Mapping[str, Mapping[str, Any]] = {
    "eagle": LLAMA,
    # By default EAGLE-3 reads layers that a target of two does not have.
    "eagle3": {
        **LLAMA,
        "draft_vocab_size": VOCABULARY,
        "eagle_aux_hidden_state_layer_ids": [0, 1, 2],
    },
    "medusa": {
        "model_type": "medusa",
        "architectures": ["MedusaModel"],
        "hidden_size": COMMON["hidden_size"],
        "vocab_size": VOCABULARY,
        "medusa_num_heads": 3,
        "medusa_num_layers": 1,
        "dtype": "float32",
    },
}


def write(name: str, folder: Path) -> Path:
    """Writes the checkpoint or drafter of that name into `folder`, from seed 0."""
    folder.mkdir(parents=True)
    if name in DRAFTERS:
        (folder / "config.json").write_text(json.dumps(DRAFTERS[name]), encoding="utf-8")
    else:
        write_model(name, folder)
        write_tokenizer(folder)
    return folder


def write_model(name: str, folder: Path) -> None:
    import torch
    import transformers

    prefix, changes = MODELS[name]
    config = getattr(transformers, f"{prefix}Config")(**COMMON | changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{prefix}ForCausalLM")(config)
    model.to(torch.float32).save_pretrained(folder)


def write_tokenizer(folder: Path) -> None:
    """One token a byte, nothing trained: any text encodes, 253 ids of the vocabulary are unused."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    symbols = [*special.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {symbol: number for number, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
