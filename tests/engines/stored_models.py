"""Tiny models written to disk in the forms that checkpoints have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from moesd_dist.records import ModelSource, ModelSpec


def checkpoint(folder: Path | str) -> ModelSpec:
    where = str(folder)
    return ModelSpec(name="stored", source=ModelSource.checkpoint, location=where, dtype="float32")


def save(model: Any, folder: Path, form: str) -> None:
    model.config._attn_implementation = "sdpa"
    if form == "fused":
        model.config.save_pretrained(folder)
        save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    else:
        model.save_pretrained(folder, max_shard_size="100KB" if form == "shards" else "1GB")
