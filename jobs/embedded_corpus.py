"""The text that trains the embedded pair, as one long tensor of tokens."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from moesd_dist.workloads.stdlib import Document, code_documents, prose_documents

SEED = 0
SEQUENCE = 256  # tokens; prompts and continuations of the default workload stay inside
VOCAB_SIZE = 2048
END_OF_TEXT = "<eos>"
END_OF_TEXT_ID = 0


def split_documents(seed: int) -> tuple[list[Document], list[Document]]:
    """Documents for training, shuffled by the seed, and those held out of it."""
    documents = [*code_documents(), *prose_documents()]
    training = [document for document in documents if not document.is_held_out]
    random.Random(seed).shuffle(training)
    return training, [document for document in documents if document.is_held_out]


def train_tokenizer(documents: list[Document]) -> Tokenizer:
    """A byte-level BPE vocabulary learnt from the training documents alone."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END_OF_TEXT],
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.text for document in documents), trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, documents: list[Document]) -> torch.Tensor:
    """All documents end to end, int64 [tokens], each closed by the end-of-text token."""
    ids: list[int] = []
    for encoding in tokenizer.encode_batch([document.text for document in documents]):
        ids += [*encoding.ids, END_OF_TEXT_ID]
    return torch.tensor(ids)


def load_or_make(folder: Path, seed: int) -> tuple[Tokenizer, torch.Tensor, torch.Tensor]:
    """Tokenizer, training tokens and held-out tokens; kept in the folder so a resumed run sees the same."""
    tokenizer_file, tokens_file = folder / "tokenizer.json", folder / "tokens.pt"
    if not tokens_file.exists():
        training, held_out = split_documents(seed)
        tokenizer = train_tokenizer(training)
        tokenizer.save(str(tokenizer_file))
        torch.save((encode(tokenizer, training), encode(tokenizer, held_out)), tokens_file)
    training_ids, held_out_ids = torch.load(tokens_file, weights_only=True)
    return Tokenizer.from_file(str(tokenizer_file)), training_ids, held_out_ids


def windows(tokens: torch.Tensor, *, count: int, step: int, phase: int) -> torch.Tensor:
    """Random windows int64 [count, SEQUENCE]; a function of the step alone, so resuming repeats nothing."""
    generator = torch.Generator().manual_seed(SEED + 1_000_003 * phase + step)
    starts = torch.randint(0, len(tokens) - SEQUENCE, (count,), generator=generator)
    return torch.stack([tokens[start : start + SEQUENCE] for start in starts.tolist()])
