"""Links are cut and nodes lose their power without a word to anybody: every point is kept once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.cluster.nodes import Cluster, wait
from tests.cluster.sweeps import Sweep, breaks, two_nodes

pytestmark = [pytest.mark.cluster, pytest.mark.root]

CUT_S = 30.0
AT = 4  # where it breaks
FEW, MANY = range(1, 9), range(1, 81)  # 80 groups outlast a link that is cut for 30 s


@pytest.fixture
def sweep(apart: Cluster, tmp_path: Path, empty_database: Path) -> Sweep:
    return two_nodes(apart, tmp_path, empty_database, batch_sizes=FEW)


def test_a_node_that_loses_its_power_is_done_without(apart, sweep):
    def switch_off(sweep):
        node = apart.node(sweep.wait_for(AT)["node"])
        with breaks(sweep):
            apart.power_off(node)

    sweep.run(switch_off)
    noticed = sweep.noticed_s("attempt 1 of")
    sweep.say("node power-off, its connections silent", noticed)
    sweep.kept_once()
    assert noticed < 10


def test_a_link_cut_for_two_seconds_costs_no_point(apart, sweep):
    def cut(sweep):
        node = apart.node(sweep.wait_for(AT)["node"])
        with breaks(sweep):
            apart.links.cut(node.number)
        time.sleep(2)
        apart.links.heal(node.number)

    sweep.run(cut)
    sweep.say(f"link cut for 2 s, {len(sweep.witness.heard)} attempts lost")
    sweep.kept_once()
    assert not sweep.result.failed


def test_a_link_cut_for_thirty_seconds_costs_an_attempt(apart, sweep):
    """The node that comes back has been given up by the cluster and ends itself: nothing of it arrives."""
    ended = []

    def cut(sweep):
        node = apart.node(sweep.wait_for(AT)["node"])
        with breaks(sweep):
            apart.links.cut(node.number)
        time.sleep(CUT_S)
        apart.links.heal(node.number)
        ended.append(wait(lambda: not node.processes(), "the healed node ends itself"))
        apart.nodes.remove(node)

    sweep.batch_sizes = MANY
    sweep.run(cut)
    noticed = sweep.noticed_s("attempt 1 of")
    sweep.say("link cut for 30 s", noticed)
    sweep.kept_once()
    assert noticed < 10
    print(f"the healed node ended itself within {ended[0]:.1f} s")
