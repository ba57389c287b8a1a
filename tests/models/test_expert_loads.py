"""Files of expert loads are read whole or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesd_dist.models.expert_loads import read_loads


def test_loads_come_back_by_layer_and_expert(tmp_path: Path) -> None:
    path = tmp_path / "loads.json"
    path.write_text(json.dumps({"model": "m", "source": "s", "loads": [[3, 0, 1], [2, 2, 0.5]]}))
    loads = read_loads(path)
    assert loads.dtype == np.float64
    np.testing.assert_array_equal(loads, [[3, 0, 1], [2, 2, 0.5]])


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        pytest.param([[1, 2]], "loads are under 'loads', a list of layers", id="no mapping"),
        pytest.param({"loads": []}, "loads are under 'loads', a list of layers", id="no layers"),
        pytest.param({"loads": 3}, "loads are under 'loads', a list of layers", id="a number"),
        pytest.param({"loads": [3, 4]}, "layer 0 of .* has 3", id="one list"),
        pytest.param({"loads": [[], []]}, "layer 0 of .* has 0 numbers", id="no experts"),
        pytest.param({"loads": [[1, 2], [3]]}, "layer 1 of .* has 1 numbers", id="a short layer"),
        pytest.param({"loads": [[1, -2]]}, "from 0 up; layer 0 of .* has -2 at 1", id="negative"),
        pytest.param({"loads": [[1, "2"]]}, "has '2' at 1", id="text"),
        pytest.param({"loads": [[True, 2]]}, "has True at 0", id="no number"),
        pytest.param({"loads": [[1, float("nan")]]}, "has nan at 1", id="not finite"),
        pytest.param({"loads": [[1, 2], [0, 0]]}, "layer 1 of .* has no load at all", id="zeros"),
    ],
)
def test_what_is_no_table_of_loads_is_refused(tmp_path: Path, plain: Any, message: str) -> None:
    path = tmp_path / "loads.json"
    path.write_text(json.dumps(plain))
    with pytest.raises(ValueError, match=message):
        read_loads(path)


@pytest.mark.parametrize("text", [None, "no JSON", b"\xff\xfe"])
def test_what_cannot_be_read_says_what_writes_one(tmp_path: Path, text: str | bytes | None) -> None:
    path = tmp_path / "loads.json"
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ValueError, match=r"loads\.json is no file of expert loads: .*analysis\.expert_loads"):  # fmt: skip
        read_loads(path)
