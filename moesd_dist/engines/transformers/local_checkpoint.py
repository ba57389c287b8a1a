"""One rank's weights from safetensors: all that is shared, and of the experts only its own."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from moesd_dist.engines.transformers.local_experts import ExpertShare, room_for
from moesd_dist.theory.expert_parallel.placement import EMPTY

# Of a layer's experts: `experts.gate_up_proj` for all together or `experts.7.up_proj.weight` for one.
# `shared_experts` is none of them: there is no word boundary behind an underscore.
LAYER = re.compile(r"\blayers\.(\d+)\.")
EXPERTS = re.compile(
    r"(?P<before>.*\blayers\.(?P<layer>\d+)\..*\bexperts)\.(?:(?P<expert>\d+)\.)?(?P<name>.+)"
)


def load_share(where: str, config: Any, dtype: torch.dtype, share: ExpertShare) -> Any:
    """A model with the share's experts, from a folder or a hub name; other experts are not read.

    ValueError for a quantised checkpoint, for one that lacks weights, and for unknown names.
    """
    if getattr(config, "quantization_config", None):
        raise ValueError(
            f"experts of a quantised checkpoint cannot be loaded by rank; {where} is one; "
            "use an unquantised one, or ep_size 1"
        )
    with ExitStack() as open_files, room_for(share):
        files = {path: open_files.enter_context(_opened(path)) for path in weight_files(where)}
        model, report = share.model_class.from_pretrained(
            None,
            config=config,
            state_dict=dict(local_state(files, share)),
            dtype=dtype,
            output_loading_info=True,
        )
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise ValueError(f"{where} lacks weights of the model: {missing}, ...; copy it again")
    return model


def _opened(path: str) -> Any:
    return safe_open(path, framework="pt")


def weight_files(where: str) -> list[str]:
    """The safetensors of a folder or a hub name, by its index if it has one; downloads what is new."""
    local = Path(where).is_dir()

    def find(name: str, *, must_exist: bool = True) -> str | None:
        found: str | None = cached_file(
            where,
            name,
            local_files_only=local,
            _raise_exceptions_for_missing_entries=must_exist,
        )
        return found

    index = find(SAFE_WEIGHTS_INDEX_NAME, must_exist=False)
    names = [SAFE_WEIGHTS_NAME]
    if index is not None:
        names = sorted(
            set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
        )
    return [path for name in names if (path := find(name)) is not None]


def local_state(files: Mapping[str, Any], share: ExpertShare) -> Iterator[tuple[str, Any]]:
    """Names and weights yet unread, experts numbered by their slots, from open files by their paths.

    transformers reads a weight by indexing it, `weight[...]`, when it comes to it.
    """
    module_of = {_layer_of(name): name for name in share.modules}
    apart: dict[tuple[int, str, str], dict[int, Any]] = defaultdict(dict)
    for path, file in files.items():
        for key in file.keys():  # noqa: SIM118 - no mapping
            match = EXPERTS.fullmatch(key)
            if match is None:
                yield key, file.get_slice(key)
            elif (layer := int(match["layer"])) not in module_of:
                continue  # a layer that the model leaves out
            elif match["expert"] is None:
                rows = share.experts_of(module_of[layer])
                yield key, Rows(path, key, rows, share.local.num_experts)
            else:
                named = (layer, match["before"], match["name"])
                apart[named][int(match["expert"])] = (file, key)
    for (layer, before, name), stored in apart.items():
        for slot, expert in enumerate(share.experts_of(module_of[layer])):
            yield f"{before}.{slot}.{name}", _one(before, name, expert, stored)


def _layer_of(module_name: str) -> int:
    match = LAYER.search(module_name)
    if match is None:
        raise ValueError(
            f"experts are found in checkpoints by `layers.N.`; module {module_name} has none; "
            "use ep_size 1"
        )
    return int(match[1])


def _one(before: str, name: str, expert: int, stored: dict[int, Any]) -> Any:
    if expert == EMPTY:
        file, key = next(iter(stored.values()))
        return Zeros(file.get_slice(key))
    if expert not in stored:
        raise ValueError(f"the checkpoint lacks {before}.{expert}.{name}; copy it again")
    file, key = stored[expert]
    return file.get_slice(key)


class Rows:
    """Some experts of a tensor [expert, ...] on disk, read when indexed; zeros for EMPTY.

    Each reading maps the file anew: pages that were mapped with the wanted ones are let go of.
    """

    def __init__(self, path: str, key: str, experts: list[int], num_experts: int) -> None:
        self._path, self._key, self._experts, self._num_experts = path, key, experts, num_experts

    def __getitem__(self, _: Any) -> Tensor:
        with _opened(self._path) as file:
            stored = file.get_slice(self._key)
            self._check(stored.get_shape())
            first, count = self._experts[0], len(self._experts)
            if first != EMPTY and self._experts == list(range(first, first + count)):
                found: Tensor = stored[first : first + count]  # stays a view of the file
                return found
            return torch.cat([_row(stored, expert) for expert in self._experts])

    def _check(self, shape: list[int]) -> None:
        if shape[0] != self._num_experts:
            raise ValueError(
                f"{self._key} must start with {self._num_experts} experts; it has shape {shape}; "
                "use ep_size 1"
            )


def _row(stored: Any, expert: int) -> Tensor:
    if expert == EMPTY:
        return torch.zeros_like(stored[0:1])
    row: Tensor = stored[expert : expert + 1]
    return row


class Zeros:
    """A tensor of zeros, shaped like one on disk."""

    def __init__(self, like: Any) -> None:
        self._like = like

    def __getitem__(self, _: Any) -> Tensor:
        return torch.zeros_like(self._like[...])
