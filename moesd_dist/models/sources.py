"""Which config and which weights a ModelSpec means, found out without loading a model."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from moesd_dist.models.checkpoint import read_checkpoint
from moesd_dist.models.families import Config
from moesd_dist.models.overrides import override_config, parse_value
from moesd_dist.models.widening import WideningFactors, widen_config
from moesd_dist.records import ModelSource, ModelSpec

EMBEDDED = Path(__file__).parent / "embedded"
EMBEDDED_NAMES = ("target", "draft")
DIGESTED_BYTES = 32 * 2**20  # from each end of a file
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # org/name


def resolve_config(spec: ModelSpec) -> dict[str, Any] | None:
    """The Hugging Face config that the model runs with, widened and overridden.

    None means a hub name, whose config only an engine can ask for; it then passes the answer to
    `finish_config`. ValueError for a source that is missing, broken or wrongly overridden.
    """
    if spec.source is ModelSource.shape:
        return finish_config({key: parse_value(key, text) for key, text in spec.config}, spec)
    folder = _folder(spec)
    return None if folder is None else finish_config(read_checkpoint(folder), spec)


def finish_config(config: Config, spec: ModelSpec) -> dict[str, Any]:
    """What the spec makes of a config that was read: widening first, then overrides."""
    finished = override_config(widen_config(config, factors_of(spec)), spec.overrides)
    if spec.source is not ModelSource.shape:
        _check_layers(config, finished)
    return finished


def weights_location(spec: ModelSpec) -> str:
    """A checkpoint folder or a hub name; ValueError for source shape, which has no weights."""
    if spec.source is ModelSource.shape:
        raise ValueError(f"source shape has random weights; {spec.name} is one; use its config")
    return str(_folder(spec) or spec.location)


def factors_of(spec: ModelSpec) -> WideningFactors:
    return WideningFactors(
        hidden=spec.widen_hidden, expert=spec.widen_expert, heads=spec.widen_heads
    )


def weight_file_bytes(spec: ModelSpec) -> int:
    """Bytes of the weights on disk; 0 for a shape or a hub name."""
    folder = None if spec.source is ModelSource.shape else _folder(spec)
    return sum(f.stat().st_size for f in folder.glob("*.safetensors")) if folder else 0


def content_digest(spec: ModelSpec) -> str:
    """16 hex digits of config and weights on disk; empty for a shape or a hub name.

    Of large files the two ends are read: a header names every tensor, and the end is weights.
    """
    folder = None if spec.source is ModelSource.shape else _folder(spec)
    if folder is None:
        return ""
    digest = hashlib.sha256()
    for file in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(DIGESTED_BYTES))
            stream.seek(max(DIGESTED_BYTES, file.stat().st_size - DIGESTED_BYTES))
            digest.update(stream.read(DIGESTED_BYTES))
    return digest.hexdigest()[:16]


def _folder(spec: ModelSpec) -> Path | None:
    """The checkpoint folder, which need not be complete; None for a hub name."""
    if spec.source is ModelSource.embedded:
        return embedded_folder(spec.location)
    folder = Path(spec.location).expanduser()
    if spec.location and folder.is_dir():
        return folder
    if not HUB_NAME.fullmatch(spec.location):
        raise ValueError(
            "a checkpoint is an existing folder or a hub name org/name; "
            f"got {spec.location!r}; check the path"
        )
    return None


def embedded_folder(name: str, root: Path = EMBEDDED) -> Path:
    """Where a packaged model lies; ValueError for another name or an incomplete installation."""
    if name not in EMBEDDED_NAMES:
        raise ValueError(f"no embedded model {name!r}; use one of {', '.join(EMBEDDED_NAMES)}")
    folder = root / name
    if not folder.is_dir():
        raise ValueError(
            f"the embedded model belongs in {folder}; it is not there; "
            "reinstall, or run python -m jobs.train_embedded"
        )
    return folder


def _check_layers(stored: Config, finished: Config) -> None:
    """Layers can be left out of weights, never added."""
    have, want = stored.get("num_hidden_layers"), finished.get("num_hidden_layers")
    if isinstance(have, int) and isinstance(want, int) and want > have:
        raise ValueError(f"num_layers {want} exceeds the {have} with weights; use 1..{have}")
