"""A driver counts as gone only where its process id means something."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from moesd_dist.records.driver import Driver, driver_from

DEAD = 2**22 + 1  # above what Linux gives


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        pytest.param({"pid": DEAD}, True, id="no such process here"),
        pytest.param({}, True, id="an earlier life of this process"),
        pytest.param({"pid": os.getppid()}, False, id="a process that runs"),
        pytest.param({"pid": DEAD, "host": "elsewhere"}, False, id="another machine"),
        pytest.param({"pid": DEAD, "scope": "boot/pid:[1]"}, False, id="another container"),
        pytest.param({"pid": DEAD, "scope": ""}, False, id="written before scopes were"),
    ],
)
def test_a_process_id_is_looked_up_where_it_was_given(
    changes: dict[str, object], gone: bool
) -> None:
    assert replace(Driver(), **changes).gone is gone  # type: ignore[arg-type]


@pytest.mark.parametrize("scope", ["boot/pid:[4026531836]", ""])
def test_a_driver_is_read_back_from_its_text(scope: str) -> None:
    driver = Driver(scope=scope)
    assert driver_from(str(driver)) == driver
    assert driver_from(f"{driver}\n") == driver
