"""One rank's weights from safetensors: all that is shared, and of the experts only its own."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from moesd_dist.engines.transformers.local_experts import ExpertShare, room_for
from moesd_dist.models.checkpoint import LENGTH_BYTES
from moesd_dist.theory.expert_parallel.placement import EMPTY

# Of a layer's experts: `experts.gate_up_proj` for all together or `experts.7.up_proj.weight` for one.
# `shared_experts` is none of them: there is no word boundary behind an underscore.
LAYER = re.compile(r"\blayers\.(\d+)\.")
EXPERTS = re.compile(
    r"(?P<before>.*\blayers\.(?P<layer>\d+)\..*\bexperts)\.(?:(?P<expert>\d+)\.)?(?P<name>.+)"
)
DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
}


def load_share(where: str, config: Any, dtype: torch.dtype, share: ExpertShare) -> Any:
    """A model with the share's experts, from a folder or a hub name; other experts are not read.

    ValueError for a quantised checkpoint, for one that lacks weights, and for unknown names.
    """
    if getattr(config, "quantization_config", None):
        raise ValueError(
            f"experts of a quantised checkpoint cannot be loaded by rank; {where} is one; "
            "use an unquantised one, or ep_size 1"
        )
    with ExitStack() as opened, room_for(share):
        files = [WeightFile(path, opened) for path in weight_files(where)]
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


def local_state(files: Iterable[WeightFile], share: ExpertShare) -> Iterator[tuple[str, Any]]:
    """Names and weights yet unread, experts numbered by their slots.

    transformers reads a weight by indexing it, `weight[...]`, when it comes to it.
    """
    module_of = {_layer_of(name): name for name in share.modules}
    apart: dict[tuple[int, str, str], dict[int, Stored]] = defaultdict(dict)
    for file in files:
        for key in file.keys:
            match = EXPERTS.fullmatch(key)
            if match is None:
                yield key, file.mapped(key)
            elif (layer := int(match["layer"])) not in module_of:
                continue  # a layer that the model leaves out
            elif match["expert"] is None:
                experts = share.experts_of(module_of[layer])
                yield key, Together(file.stored(key), experts, share.local.num_experts)
            else:
                named = (layer, match["before"], match["name"])
                apart[named][int(match["expert"])] = file.stored(key)
    for (layer, before, name), stored in apart.items():
        for slot, expert in enumerate(share.experts_of(module_of[layer])):
            if expert not in stored and expert != EMPTY:
                raise ValueError(f"the checkpoint lacks {before}.{expert}.{name}; copy it again")
            anyone = next(iter(stored.values()))
            yield f"{before}.{slot}.{name}", Apart(stored.get(expert), like=anyone)


def _layer_of(module_name: str) -> int:
    match = LAYER.search(module_name)
    if match is None:
        raise ValueError(
            f"experts are found in checkpoints by `layers.N.`; module {module_name} has none; "
            "use ep_size 1"
        )
    return int(match[1])


class WeightFile:
    """An open safetensors file."""

    def __init__(self, path: str, opened: ExitStack) -> None:
        self.path = path
        self._file: Any = opened.enter_context(safe_open(path, framework="pt"))
        self.keys: list[str] = list(self._file.keys())
        with open(path, "rb") as raw:
            length = int.from_bytes(raw.read(LENGTH_BYTES), "little")
            self._header, self._data = json.loads(raw.read(length)), LENGTH_BYTES + length

    def mapped(self, key: str) -> Any:
        """A tensor that stays a view of the file."""
        return self._file.get_slice(key)

    def stored(self, key: str) -> Stored:
        about = self._header[key]
        if about["dtype"] not in DTYPES:
            raise ValueError(
                f"{key} must be one of {', '.join(DTYPES)}; it is {about['dtype']}; use ep_size 1"
            )
        start = self._data + about["data_offsets"][0]
        return Stored(key, self.path, start, about["shape"], DTYPES[about["dtype"]])


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a tensor lies; read into memory of its own.

    A mapped file takes memory for what lies around as well: that is other ranks' experts.
    """

    key: str
    path: str
    start: int  # byte in the file
    shape: list[int]
    dtype: torch.dtype

    def read(self, into: Tensor, *, skip: int = 0) -> Tensor:
        """Fills a tensor with the elements behind the first `skip` ones."""
        with open(self.path, "rb") as raw:
            raw.seek(self.start + skip * into.element_size())
            memory: Any = into.view(-1).view(torch.uint8).numpy()
            raw.readinto(memory)
        return into


class Together:
    """All experts of a layer in one tensor [expert, ...]: those of the slots, zeros for EMPTY."""

    def __init__(self, stored: Stored, experts: list[int], num_experts: int) -> None:
        self._stored, self._experts = stored, experts
        if stored.shape[0] != num_experts:
            raise ValueError(
                f"{stored.key} must start with {num_experts} experts; it has shape "
                f"{stored.shape}; use ep_size 1"
            )

    def __getitem__(self, _: Any) -> Tensor:
        found = torch.zeros((len(self._experts), *self._stored.shape[1:]), dtype=self._stored.dtype)
        for row, expert in zip(found, self._experts, strict=True):
            if expert != EMPTY:
                self._stored.read(row, skip=expert * row.numel())
        return found


class Apart:
    """An expert's own tensor; None is none, zeros like another one's."""

    def __init__(self, stored: Stored | None, *, like: Stored) -> None:
        self._stored, self._like = stored, like

    def __getitem__(self, _: Any) -> Tensor:
        found = torch.zeros(self._like.shape, dtype=self._like.dtype)
        return found if self._stored is None else self._stored.read(found)
