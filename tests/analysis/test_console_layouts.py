"""The lines of a sweep over layouts tell its points apart."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from moesd_dist.console import ConsoleProgress, name
from moesd_dist.records import Measurement
from tests.analysis.conftest import measure, point
from tests.analysis.shared_experts import shared


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        pytest.param(measure(point(8, 3)), "B=8 gamma=3", id="a rank alone"),
        pytest.param(shared(8, 3, 4), "B=8 gamma=3 ep=4", id="shared"),
        pytest.param(shared(8, 0, 2), "B=8 gamma=0 ep=2", id="a baseline"),
    ],
)
def test_a_point_is_named_for_the_ranks_that_share_its_experts(
    measured: Measurement, expected: str
) -> None:
    assert name(measured.point) == expected


def lines_of(measured: list[Measurement]) -> list[str]:
    text = io.StringIO()
    progress = ConsoleProgress(Console(file=text, width=200))
    progress.begin(len(measured), 0)
    for m in measured:
        progress.advance(m)
    progress.end()
    return [line for line in text.getvalue().splitlines() if line.startswith("[")]


def test_placements_and_nodes_are_said_from_where_they_differ() -> None:
    lines = lines_of(
        [
            shared(8, 3, 4, expert_placement="linear"),
            shared(8, 3, 4, expert_placement="round_robin"),
            shared(8, 3, 4, expert_placement="linear", nodes=2),
        ]
    )
    assert "[1 node linear]" not in lines[0]
    assert lines[1].endswith("[1 node round_robin]")
    assert lines[2].endswith("[2 nodes linear]")


def test_one_layout_is_said_once() -> None:
    assert not any("node" in line for line in lines_of([shared(b, 3, 4) for b in (2, 8)]))
