"""The line that a person sees of each point."""

from __future__ import annotations

import pytest

from moesd_dist.console import one_line
from moesd_dist.records import Failed, Measurement, Outcome
from tests.analysis.conftest import measure, point, untimed


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        pytest.param(
            measure(point(8, 3), flags=("foreign_load",)),
            "B=8 gamma=3 1600.0 tokens/s, speedup 2.00, target efficiency 0.80, "
            "acceptance length 2.80 (foreign_load)",
            id="timed",
        ),
        pytest.param(
            untimed(8, 3),
            "B=8 gamma=3 ep=2 untimed, acceptance length 2.80 (cpu_fixes)",
            id="untimed",
        ),
        pytest.param(
            untimed(8, 0), "B=8 gamma=0 ep=2 untimed (cpu_fixes)", id="an untimed baseline"
        ),
        pytest.param(
            Failed(point=point(8, 3), reason="it broke"),
            "B=8 gamma=3 failed: it broke",
            id="failed",
        ),
    ],
)
def test_one_line_a_point(outcome: Outcome, line: str) -> None:
    assert one_line(outcome) == line


def test_no_line_of_an_untimed_point_speaks_of_seconds() -> None:
    lines = [one_line(m) for m in _untimed()]
    assert not any("tokens/s" in line or "speedup" in line for line in lines)


def _untimed() -> list[Measurement]:
    return [untimed(b, gamma) for b in (1, 8) for gamma in (0, 3)]
