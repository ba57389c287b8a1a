"""Expert-parallel layouts of vLLM under Ray: one actor an engine, or one for each data-parallel rank."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from moesd_dist.build import make_engine
from moesd_dist.records import LayoutSpec, Measurement, Protocol
from moesd_dist.sweep.cluster.crew import ClusterSettings
from moesd_dist.sweep.cluster.executor import RayExecutor
from moesd_dist.sweep.cluster.live import Terms
from moesd_dist.sweep.driver import run_sweep
from moesd_dist.sweep.ledger import Ledger
from moesd_dist.sweep.retries import RetryRule
from moesd_dist.sweep.schedule.needs import Needs
from moesd_dist.tracking.memory import MemoryTracker
from tests.engines.vllm.apart import SHARED_MEMORY
from tests.engines.vllm.points import point

LAYOUTS = {
    "single": LayoutSpec(),
    "tp2_ep": LayoutSpec(tp_size=2, ep_size=2),
    "dp2_ep": LayoutSpec(dp_size=2, ep_size=2),
}
BATCH = 5  # odd, so that data-parallel ranks have unequal shares


class Silent:
    def begin(self, total, done): ...
    def begin_round(self, planned): ...
    def advance(self, outcome): ...

    def note(self, text): ...
    def end(self): ...


@pytest.fixture(scope="module")
def measured(cpu_fixed: dict[str, str]) -> Iterator[dict[str, Measurement]]:
    """The SD point (draft model, gamma 2) of each layout, by its name."""
    protocol = Protocol(repeats=1, warmup_rounds=1, window_tokens=1)
    sd = {
        name: point(gamma=2, batch_size=BATCH, layout=layout, cpu_fixes=True, protocol=protocol)
        for name, layout in LAYOUTS.items()
    }
    points = [member for each in sd.values() for member in (each.baseline, each)]
    executor = RayExecutor(
        partial(make_engine, timeouts=(200.0, 100.0, 60.0)),
        lambda key: Terms(needs=Needs(ranks=key.layout.dp_size, whole_node=True)),
        ClusterSettings(rule=RetryRule(attempts=1, on_error=1)),
    )
    tracker = MemoryTracker()
    tracker.open("id", "layouts", points)
    before = set(SHARED_MEMORY.iterdir())
    result = run_sweep(points, Ledger(tracker), executor, Silent())
    assert not result.failed, [f"{f.reason}\n{f.log[-2000:]}" for f in result.failed]
    assert not result.infeasible, [i.reason for i in result.infeasible]
    found = {outcome.point.point_id: outcome for outcome in result.measurements}
    yield {name: found[each.point_id] for name, each in sd.items()}
    left = {path.name for path in set(SHARED_MEMORY.iterdir()) - before}
    assert not {name for name in left if name.startswith(("psm_", "vllm"))}


@pytest.mark.parametrize("name", ["tp2_ep", "dp2_ep"])
def test_they_accept_about_as_much_as_one_process(measured, name: str):
    """Not the same rounds: ranks end their windows apart. The same tokens: see test_cpu_fixes."""
    lengths = [measured[each].acceptance_length for each in ("single", name)]
    assert lengths[1] == pytest.approx(lengths[0], rel=0.15)
    assert measured[name].repeats[0].prompts == BATCH


@pytest.mark.parametrize("name", ["tp2_ep", "dp2_ep"])
def test_their_seconds_are_never_reported(measured, name: str):
    (repeat,) = measured[name].repeats
    assert not measured[name].timed
    assert "untimed" in measured[name].flags
    assert repeat.seconds == repeat.target_s == repeat.median_target_s == repeat.end_to_end_s == 0.0


def test_experts_are_counted_where_one_gate_sees_every_token(measured):
    """Ranks with gates of their own know their experts, not which of them are the same."""
    assert measured["tp2_ep"].activated_experts == pytest.approx(
        measured["single"].activated_experts, rel=0.1
    )
    assert not measured["dp2_ep"].repeats[0].experts_seen
