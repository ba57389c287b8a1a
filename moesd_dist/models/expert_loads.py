"""Measured loads of a model's experts, read from a file that analysis.expert_loads wrote."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_WRITER = "python -m analysis.expert_loads writes one from a finished sweep"


def read_loads(path: str | Path) -> npt.NDArray[np.float64]:
    """Tokens that each logical expert was given, float64 [MoE layer, expert].

    Raises ValueError, one line with the path, for a file that is not there, is no JSON, or holds
    anything but one row of numbers from 0 up for each layer, all of the same length.
    """
    try:
        plain = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no file of expert loads: {error}; {_WRITER}") from error
    rows = plain.get("loads") if isinstance(plain, dict) else None
    if not isinstance(rows, list) or not rows:
        raise ValueError(
            f"expert loads are under 'loads', a list of layers; {path} has none; {_WRITER}"
        )
    for layer, row in enumerate(rows):
        _check(row, f"layer {layer} of {path}", len(rows[0]) if isinstance(rows[0], list) else 0)
    return np.asarray(rows, dtype=np.float64)


def _check(row: Any, name: str, experts: int) -> None:
    if not isinstance(row, list) or not row or len(row) != experts:
        found = f"{len(row)} numbers" if isinstance(row, list) else repr(row)
        raise ValueError(
            f"a layer's expert loads are as many numbers as the first layer's; {name} has {found}"
        )
    for expert, load in enumerate(row):
        if not _is_load(load):
            raise ValueError(f"an expert's load is a number from 0 up; {name} has {load!r} at {expert}")  # fmt: skip
    if not any(row):
        raise ValueError(f"{name} has no load at all: nothing can be placed by it; {_WRITER}")


def _is_load(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0
