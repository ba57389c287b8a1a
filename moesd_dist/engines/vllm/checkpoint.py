"""Makes of a ModelSpec what vLLM can load: a folder or a hub name."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from moesd_dist.models.checkpoint import INDEX, read_checkpoint
from moesd_dist.models.families import Config, num_layers
from moesd_dist.models.overrides import parse_value
from moesd_dist.models.sources import content_digest, factors_of, resolve_config, weights_location
from moesd_dist.records import ModelSource, ModelSpec
from moesd_dist.records.identity import identity

FORMAT = 1  # of the folders written here; a change of what is in them makes it 2
HUB_KEYS = {"num_layers": "num_hidden_layers", "top_k": "num_experts_per_tok"}
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """What goes to vLLM as `model` and `load_format`; the dtype is the spec's, not the folder's."""

    model: str  # folder or hub name
    load_format: str  # "auto", or "dummy" where there are no weights
    has_tokenizer: bool


def materialised(spec: ModelSpec, root: Path | None = None) -> Located:
    """Where the weights lie, written below `root` (else the cache) if the spec changes them.

    ValueError for a spec that cannot be had, OSError where its folder cannot be written.
    """
    root = root or cache_folder()
    if spec.source is ModelSource.shape:
        folder = _cached(spec, root, None)
        return Located(model=str(folder), load_format="dummy", has_tokenizer=False)
    where = Path(weights_location(spec))
    if not where.is_dir():
        _refuse_widening(spec)
        return Located(model=spec.location, load_format="auto", has_tokenizer=True)
    read_checkpoint(where)  # says what is wrong before vLLM does
    unchanged = factors_of(spec).are_one and not spec.overrides
    folder = where if unchanged else _cached(spec, root, where.resolve())
    tokenizer = any((where / name).is_file() for name in TOKENIZERS)
    return Located(model=str(folder), load_format="auto", has_tokenizer=tokenizer)


def hf_overrides(spec: ModelSpec) -> dict[str, Any]:
    """What vLLM must change in the config of a hub name; empty where a folder has the change.

    With fewer layers vLLM refuses the hub's weights: download them, or load dummy ones.
    """
    if spec.source is not ModelSource.checkpoint or Path(weights_location(spec)).is_dir():
        return {}
    return {HUB_KEYS.get(key, key): parse_value(key, text) for key, text in spec.overrides}


def cache_folder() -> Path:
    """In $MOESD_CACHE, else in the user's cache folder, beside what `cpu_cache` keeps."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("MOESD_CACHE") or home / "moesd-dist") / "vllm"


def _cached(spec: ModelSpec, root: Path, source: Path | None) -> Path:
    """The spec's folder below `root`, complete: it gets its name when everything is in it."""
    folder = root.expanduser().resolve() / _name(spec, source)
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            _write(spec, source, folder)
        except (OSError, SafetensorError) as error:
            raise OSError(
                f"model {spec.name} must be written below {root} for vLLM: {error}; "
                "make room, or set MOESD_CACHE to another folder"
            ) from error
    if source is not None:
        _check(folder)
    return folder


def _name(spec: ModelSpec, source: Path | None) -> str:
    """By content and, because weights may be linked, by where they come from."""
    digest = spec.digest or content_digest(spec)
    key = replace(spec, name="", location=str(source or ""), digest=digest)
    return f"{identity(key)}-{FORMAT}"


def _check(folder: Path) -> None:
    try:
        read_checkpoint(folder)
    except (ValueError, OSError) as error:
        raise ValueError(f"the cached model is broken: {error}; delete {folder}") from error


def _write(spec: ModelSpec, source: Path | None, folder: Path) -> None:
    config = resolve_config(spec)
    assert config is not None  # only a hub name has none, and it is not written
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        plain = json.dumps(_loadable(config, spec), indent=1) + "\n"
        (scratch / "config.json").write_text(plain, encoding="utf-8")
        if source is not None:
            _fill(scratch, spec, source, config)
        _publish(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish(scratch: Path, folder: Path) -> None:
    try:
        scratch.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster, with the same content
            raise


def _fill(scratch: Path, spec: ModelSpec, source: Path, config: Config) -> None:
    """Weights rewritten where they change, linked where only the config does."""
    factors, layers = factors_of(spec), num_layers(config)
    fewer = layers < num_layers(read_checkpoint(source))
    rewritten = fewer or not factors.are_one  # vLLM refuses weights of a layer that is not there
    if rewritten:
        from moesd_dist.engines.vllm.rewriting import rewrite_weights  # torch takes seconds

        dtype = "" if factors.are_one else spec.dtype  # a quantised checkpoint stays one
        rewrite_weights(source, scratch, factors=factors, num_layers=layers, dtype=dtype)
    for file in sorted(source.iterdir()):
        weights = file.suffix == ".safetensors" or file.name == INDEX
        if file.name != "config.json" and not (weights and rewritten):
            (scratch / file.name).symlink_to(file)


def _loadable(config: Config, spec: ModelSpec) -> dict[str, Any]:
    """With the keys that vLLM asks for and transformers fills in by itself."""
    architectures = config.get("architectures") or [_architecture(config)]
    loadable = {**config, "architectures": architectures, "dtype": spec.dtype}
    if config.get("model_type") == "deepseek_v3":
        loadable.setdefault("topk_method", "noaux_tc")  # its only one in transformers
    return loadable


def _architecture(config: Config) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = config.get("model_type")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ValueError(
            f"model_type must be a causal model that transformers knows; got {kind!r}; "
            "name the class in the config's architectures"
        )
    return str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind])


def _refuse_widening(spec: ModelSpec) -> None:
    if not factors_of(spec).are_one:
        raise ValueError(
            f"vLLM gets widened weights from a local folder; {spec.location} is a hub name; "
            f"run hf download {spec.location} --local-dir FOLDER and give the folder"
        )
