"""Changing keys of a Hugging Face config under the names that this project uses."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

from moesd_dist.models import families
from moesd_dist.models.families import Config

# Our name, or any family's, for a key that the config may hold under another of these names.
SYNONYMS = (
    ("num_layers", "num_hidden_layers"),
    ("top_k", "num_experts_per_tok"),
    families.NUM_EXPERTS,
)


def override_config(config: Config, overrides: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """A copy with (key, JSON text) pairs applied.

    `num_layers` and `top_k` mean the family's own key. ValueError for a key that the config does
    not have, text that is not JSON, or more experts per token than there are.
    """
    changed = dict(config)
    for key, text in overrides:
        changed[_own_key(config, key)] = parse_value(key, text)
    _fit_layer_types(changed)
    if changed.get("model_type") in families.MOE_FAMILIES:
        families.check_routing(changed)
    return changed


def parse_value(key: str, text: str) -> Any:
    """The value of one key; ValueError for text that is not JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"the value of {key} must be JSON; got {text!r}; quote strings") from error


def _own_key(config: Config, key: str) -> str:
    """The name under which this config holds `key`."""
    if key in config:
        return key
    alike = [name for names in SYNONYMS if key in names for name in names if name in config]
    if not alike:
        raise ValueError(_unknown_key(config, key))
    return alike[0]


def _unknown_key(config: Config, key: str) -> str:
    kind = config.get("model_type")
    if key in SYNONYMS[1] and kind in families.DENSE_FAMILIES:
        return f"{key} needs routed experts; {kind} is dense; leave it out"
    names = [*config, "num_layers", "top_k"]
    nearest = difflib.get_close_matches(key, names, n=1, cutoff=0.0)[0]
    return f"{key!r} is not a key of this {kind} config; did you mean {nearest!r}?"


def _fit_layer_types(config: dict[str, Any]) -> None:
    """Keeps the list of one entry per layer, which transformers compares with the layer count."""
    kinds = config.get("layer_types")
    if kinds:
        count = families.integer(config, "num_hidden_layers")
        config["layer_types"] = [*kinds, *[kinds[-1]] * count][:count]
