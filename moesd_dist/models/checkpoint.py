"""Whether a folder is a Hugging Face checkpoint, told from its headers without reading weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

INDEX = "model.safetensors.index.json"
LENGTH_BYTES = 8  # of the header's length, little-endian
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The config of a complete checkpoint folder; ValueError that says what is wrong with it."""
    if not folder.is_dir():
        raise ValueError(f"a checkpoint is a folder; {folder} is not one; check the path")
    config = _read_config(folder)
    for file in _weight_files(folder):
        check_safetensors(file)
    return config


def check_safetensors(file: Path) -> None:
    """ValueError unless the header parses and the file ends where the header says."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
        if size < LENGTH_BYTES or length > min(size - LENGTH_BYTES, MAX_HEADER_BYTES):
            raise ValueError(
                f"{file} is no safetensors file: no header fits its {size} bytes; copy it again"
            )
        expected = LENGTH_BYTES + length + _data_bytes(stream.read(length), file)
    if size != expected:
        raise ValueError(
            f"{file} must have {expected} bytes by its header, has {size}; copy it again"
        )


def _data_bytes(header: bytes, file: Path) -> int:
    """Where the last tensor ends, counted from the end of the header."""
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        return max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(
            f"{file} is no safetensors file: unreadable header; copy it again"
        ) from error


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise ValueError(f"a checkpoint needs config.json; {folder} has none; use save_pretrained")
    return _read_object(file)


def _read_object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{file} is not readable as JSON: {error}; copy it again") from error
    match value:
        case dict():
            return value
        case _:
            kind = type(value).__name__
            raise ValueError(f"{file} must hold a JSON object; got a {kind}; copy it again")


def _weight_files(folder: Path) -> list[Path]:
    """Every .safetensors file of the folder; ValueError when one named by the index is missing."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(
            f"a checkpoint needs *.safetensors; {folder} has none; use save_pretrained"
        )
    for name in _indexed(folder):
        if not (folder / name).is_file():
            raise ValueError(f"{INDEX} names {name}; {folder} lacks it; copy all shards")
    return files


def _indexed(folder: Path) -> list[str]:
    file = folder / INDEX
    if not file.is_file():
        return []
    match _read_object(file):
        case {"weight_map": dict(weight_map)}:
            return sorted({str(name) for name in weight_map.values()})
        case _:
            raise ValueError(f"{file} must hold a weight_map; it has none; copy it again")
