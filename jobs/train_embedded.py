"""Trains the embedded pair: a small MoE target on Python's own library, a dense draft on the target.

    python -m jobs.train_embedded --work build/embedded --out moesd_dist/models/embedded

Three phases, each resumed from its last checkpoint after an interruption: the target learns the
text; it writes continuations of training text; the draft learns the target's distributions, half on
the text and half on those continuations, which is where it will be asked to guess.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from jobs.embedded_corpus import (
    END_OF_TEXT,
    END_OF_TEXT_ID,
    SEED,
    SEQUENCE,
    VOCAB_SIZE,
    load_or_make,
    windows,
)
from jobs.embedded_loop import adamw, muon_and_adamw, train

TARGET_STEPS, TARGET_BATCH, TARGET_LR = 6000, 8, 3e-3
DRAFT_STEPS, DRAFT_BATCH, DRAFT_LR = 7500, 8, 4e-3
OWN_TEXT_SEQUENCES, OWN_TEXT_BATCH, OWN_TEXT_PROMPT = 4096, 128, 32


def target_model() -> Qwen3MoeForCausalLM:
    """64 experts of which 8 work on a token: 6.8 M parameters, 1.5 M of them active."""
    config = Qwen3MoeConfig(
        vocab_size=VOCAB_SIZE, hidden_size=128, num_hidden_layers=4, head_dim=32,
        num_attention_heads=4, num_key_value_heads=2, num_experts=64, num_experts_per_tok=8,
        moe_intermediate_size=64, intermediate_size=256, norm_topk_prob=True,
        router_aux_loss_coef=0.01, output_router_logits=True, max_position_embeddings=2048,
        tie_word_embeddings=True, experts_implementation="grouped_mm",
        bos_token_id=END_OF_TEXT_ID, eos_token_id=END_OF_TEXT_ID, pad_token_id=END_OF_TEXT_ID,
    )  # fmt: skip
    return Qwen3MoeForCausalLM(config)


def draft_model() -> Qwen3ForCausalLM:
    """Two dense layers: one layer cannot copy from the context, which code asks for."""
    config = Qwen3Config(
        vocab_size=VOCAB_SIZE, hidden_size=192, num_hidden_layers=2, head_dim=32,
        num_attention_heads=6, num_key_value_heads=2, intermediate_size=448,
        max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=END_OF_TEXT_ID, eos_token_id=END_OF_TEXT_ID, pad_token_id=END_OF_TEXT_ID,
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


def train_target(tokens: Tensor, work: Path, steps: int) -> Qwen3MoeForCausalLM:
    model = target_model()

    def loss_of(step: int) -> Tensor:
        text = windows(tokens, count=TARGET_BATCH, step=step, phase=1)
        return cast(Tensor, model(input_ids=text, labels=text).loss)

    optimizers = [adamw(list(model.parameters()), TARGET_LR)]
    train(model, optimizers, loss_of, steps=steps, file=work / "target.pt")
    model.config.output_router_logits = False  # the balancing loss is for training only
    return model.eval()


@torch.no_grad()
def write_own_text(
    target: Qwen3MoeForCausalLM, tokens: Tensor, work: Path, sequences: int
) -> Tensor:
    """The target's continuations of training text, int64 [sequences, SEQUENCE], kept part by part.

    Every other part is greedy, the rest sampled at temperature 1: the two regimes that are measured.
    """
    parts = []
    for index in range(math.ceil(sequences / OWN_TEXT_BATCH)):
        file = work / f"own_text_{index:03d}.pt"
        if not file.exists():
            prompts = windows(tokens, count=OWN_TEXT_BATCH, step=index, phase=2)[:, :OWN_TEXT_PROMPT]  # fmt: skip
            torch.manual_seed(SEED + index)
            text = target.generate(
                prompts, max_length=SEQUENCE, min_length=SEQUENCE, do_sample=index % 2 == 1,
                top_k=0, eos_token_id=None,
            )  # fmt: skip
            torch.save(text, file)
            print(f"own text {index + 1} of {math.ceil(sequences / OWN_TEXT_BATCH)}", flush=True)
        parts.append(torch.load(file, weights_only=True))
    return torch.cat(parts)


def train_draft(
    target: Qwen3MoeForCausalLM, tokens: Tensor, own: Tensor, work: Path, steps: int
) -> Qwen3ForCausalLM:
    """Minimises the cross-entropy to the target's whole distribution, half on its own text."""
    model = draft_model()
    with torch.no_grad():  # a start in the target's own space: its embedding in the first columns
        known = target.get_input_embeddings().weight
        model.get_input_embeddings().weight[:, : known.shape[1]] = known

    def loss_of(step: int) -> Tensor:
        half = DRAFT_BATCH // 2
        generator = torch.Generator().manual_seed(SEED + 2_000_003 + step)
        rows = torch.randint(0, len(own), (half,), generator=generator)
        text = torch.cat([windows(tokens, count=half, step=step, phase=3), own[rows]])
        with torch.no_grad():
            teacher = target(input_ids=text).logits.softmax(-1)
        logits = cast(Tensor, model(input_ids=text).logits)
        return -(cast(Tensor, teacher) * logits.log_softmax(-1)).sum(-1).mean()

    train(model, muon_and_adamw(model, DRAFT_LR), loss_of, steps=steps, file=work / "draft.pt")
    return model.eval()


def export(model: PreTrainedModel, tokenizer: Tokenizer, folder: Path) -> None:
    """A Hugging Face checkpoint in bf16 safetensors, with its tokenizer beside it."""
    model.config._experts_implementation = None  # how it was trained is no business of who loads it
    model.bfloat16().save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT
    ).save_pretrained(folder)


@torch.no_grad()
def agreement(target: PreTrainedModel, draft: PreTrainedModel, held_out: Tensor) -> str:
    """How often the draft's first choice is the target's, and the overlap of their distributions."""
    text = windows(held_out, count=32, step=0, phase=4)
    a = target(input_ids=text).logits.float()
    b = draft(input_ids=text).logits.float()
    nll = nn.functional.cross_entropy(a[:, :-1].flatten(0, 1), text[:, 1:].flatten()).item()
    same = (a.argmax(-1) == b.argmax(-1)).float().mean().item()
    overlap = torch.minimum(a.softmax(-1), b.softmax(-1)).sum(-1).mean().item()
    return (
        f"held-out text: target loss {nll:.3f}, argmax agreement {same:.3f}, overlap {overlap:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument(
        "--work", type=Path, required=True, help="checkpoints; continued if present"
    )
    parser.add_argument("--out", type=Path, required=True, help="gets target/ and draft/")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--target-steps", type=int, default=TARGET_STEPS)
    parser.add_argument("--draft-steps", type=int, default=DRAFT_STEPS)
    parser.add_argument("--own-text", type=int, default=OWN_TEXT_SEQUENCES, help="sequences")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    options.work.mkdir(parents=True, exist_ok=True)
    tokenizer, tokens, held_out = load_or_make(options.work, SEED)
    print(f"{len(tokens):,} training tokens, {len(held_out):,} held out", flush=True)
    target = train_target(tokens, options.work, options.target_steps)
    own = write_own_text(target, tokens, options.work, options.own_text)
    draft = train_draft(target, tokens, own, options.work, options.draft_steps)
    print(agreement(target, draft, held_out), flush=True)
    export(target, tokenizer, options.out / "target")
    export(draft, tokenizer, options.out / "draft")


if __name__ == "__main__":
    main()
