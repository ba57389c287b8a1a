"""Copies a checkpoint's weights layer by layer, widened or with its last layers left out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from moesd_dist.models.checkpoint import INDEX
from moesd_dist.models.widening import (
    EMBEDDING,
    HEAD,
    Tiling,
    WideningFactors,
    apply_tiling,
    tiling_of,
)

LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
EXPERT = re.compile(r"^(.*\.mlp\.experts)\.\d+\.(gate_proj|up_proj|down_proj)\.weight$")
FUSED = {"gate_proj": "gate_up_proj", "up_proj": "gate_up_proj", "down_proj": "down_proj"}
OUTSIDE = -1  # the layer of a tensor that is in none


def rewrite_weights(
    source: Path, into: Path, *, factors: WideningFactors, num_layers: int, dtype: str
) -> None:
    """The first `num_layers` layers of `source`, one file a layer, and their index.

    An empty `dtype` keeps each tensor's own. No more than a layer is in memory at a time.
    """
    parts = _by_layer(source, num_layers)
    names = {n: f"model-{i + 1:05}-of-{len(parts):05}.safetensors" for i, n in enumerate(parts)}
    weight_map: dict[str, str] = {}
    for layer, places in parts.items():
        tensors = dict(_tensors(places, factors, dtype))
        save_file(tensors, into / names[layer], metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, names[layer])
    index = {"metadata": {}, "weight_map": weight_map}
    (into / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _by_layer(source: Path, num_layers: int) -> dict[int, dict[str, Path]]:
    """The file of every tensor that is kept, grouped by layer."""
    parts: dict[int, dict[str, Path]] = {}
    for file in sorted(source.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (a handle, no mapping)
                layer = _layer_of(name)
                if layer < num_layers:
                    parts.setdefault(layer, {})[name] = file
    return dict(sorted(parts.items()))


def _layer_of(name: str) -> int:
    found = LAYER.search(name)
    return int(found[1]) if found else OUTSIDE


def _tensors(
    places: dict[str, Path], factors: WideningFactors, dtype: str
) -> Iterator[tuple[str, torch.Tensor]]:
    """As `widen_state` does it, but from and to the names on disk."""
    for name, tensor in _read(places, dtype):
        if factors.are_one:
            yield name, tensor
            continue
        yield name, apply_tiling(tensor, _tiling(name, factors))
        if name == EMBEDDING and HEAD not in places:
            yield HEAD, apply_tiling(tensor, _tiling(HEAD, factors))


def _read(places: dict[str, Path], dtype: str) -> Iterator[tuple[str, torch.Tensor]]:
    for file in sorted(set(places.values())):
        with safe_open(file, framework="pt") as opened:
            for name in (n for n, where in places.items() if where == file):
                tensor: torch.Tensor = opened.get_tensor(name)
                yield name, tensor.to(getattr(torch, dtype)) if dtype else tensor


def _tiling(name: str, factors: WideningFactors) -> Tiling:
    """Also of one expert's matrix: on disk experts lie apart, gate and up too."""
    apart = EXPERT.match(name)
    if not apart:
        return tiling_of(name, factors)
    return replace(tiling_of(f"{apart[1]}.{FUSED[apart[2]]}", factors), stacked=1)
