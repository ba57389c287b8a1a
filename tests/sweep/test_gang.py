"""Ranks of one engine start together, fail together and end together, on a real Ray cluster."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import pytest
import ray
from ray.util import placement_group_table

from moesd_dist.records import (
    Failed,
    Infeasible,
    LayoutSpec,
    Measurement,
    ModelSource,
    ModelSpec,
    Outcome,
    Protocol,
    Repeat,
    SdSpec,
    SweepPoint,
    WorkloadSpec,
)
from moesd_dist.sweep.cluster.crew import ClusterSettings
from moesd_dist.sweep.cluster.executor import RayExecutor
from moesd_dist.sweep.cluster.live import Terms
from moesd_dist.sweep.driver import InlineExecutor
from moesd_dist.sweep.grid import expand
from moesd_dist.sweep.grouping import groups
from moesd_dist.sweep.pairing import LoadLimit
from moesd_dist.sweep.retries import RetryRule
from moesd_dist.sweep.schedule.needs import Needs

DEADLINE_S = 60.0  # for ranks to meet: those that start one after another never do
# What goes wrong is chosen by batch size, and for most gamma 1 is where it does.
DIES, HANGS, APART, TOO_BIG = 4, 6, 12, 64


class MeetingEngine:
    """One of several ranks: each has to hear from all others before it goes on, as in a collective."""

    def __init__(self, key):
        self.place, self.rank, self.size = key.place, key.place.rank, key.place.size
        self.folder = Path(json.loads(dict(key.engine_args)["folder"]))
        self.peers = meet(key.place) if self.size > 1 else []
        self.note("started", os.environ.get("CUDA_VISIBLE_DEVICES", ""))

    def describe(self):
        return {"host": str(os.getpid()), "device_name": "meeting"}

    def infeasible(self, point):
        full = point.batch_size >= TOO_BIG and point.gamma == 1 and self.rank == 1
        return Infeasible(point=point, reason="rank 1 is full") if full else None

    def together(self, points):
        return not (points[0].batch_size == APART and self.rank == 1)

    def warm_up(self, point):
        self.exchange(point)

    def measure(self, point, repeat):
        if point.gamma == 1:
            self.suffer(point.batch_size)
        self.exchange(point)
        return window(point, self.place)

    def suffer(self, batch_size):
        if batch_size == DIES and self.rank == 1:
            os._exit(1)
        if batch_size == HANGS and self.rank == 1:
            raise MemoryError("no room for the drafts")
        if batch_size == HANGS:
            time.sleep(300)

    def routing(self, point):
        return 64, 8

    def close(self):
        self.note("closed", "")
        for peer in self.peers:
            peer.close()

    def exchange(self, point):
        """Hears from all others which gamma they are at."""
        for peer in self.peers:
            peer.sendall(bytes([point.gamma]))
        heard = [peer.recv(1) for peer in self.peers]
        if not all(heard):
            raise ConnectionError("the other rank is gone")
        assert heard == [bytes([point.gamma])] * len(heard), "the ranks are out of step"

    def note(self, what, text):
        (self.folder / f"{what}_{self.size}_{self.rank}_{os.getpid()}").write_text(text)


def meet(place):
    if place.rank == 0:
        with socket.create_server((place.address, place.port)) as server:
            server.settimeout(DEADLINE_S)
            peers = [server.accept()[0] for _ in range(place.size - 1)]
    else:
        peers = [call(place)]
    for peer in peers:
        peer.settimeout(DEADLINE_S)
    return peers


def call(place):
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return socket.create_connection((place.address, place.port))
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def window(point, place):
    rows = place.share(point.batch_size)
    return Repeat(
        seconds=1.0 + place.rank,
        rounds=5,
        tokens=5 * rows,
        drafted=5 * rows * point.gamma,
        accepted=0,
        accepted_per_position=(0,) * point.gamma,
        sequence_rounds=5 * rows,
        draft_s=0.0,
        target_s=1.0,
        reject_s=0.0,
        tokens_per_forward=point.gamma + 1,
        median_target_s=0.2,
        median_draft_s=0.0,
    )


def base(folder, **layout):
    return SweepPoint(
        engine="meeting",
        target=ModelSpec(name="target", source=ModelSource.embedded),
        workload=WorkloadSpec(
            name="random", prompt_tokens_min=1, prompt_tokens_max=1, output_tokens=1
        ),
        batch_size=1,
        gamma=0,
        sd=SdSpec(),
        protocol=Protocol(repeats=2),
        layout=LayoutSpec(tp_size=2, **layout),
        engine_args=(("folder", json.dumps(str(folder))),),
    )


def terms(key):
    return Terms(needs=Needs(ranks=key.layout.dp_size, gpus=key.layout.tp_size))


def groups_of(point, batch_sizes):
    return groups(expand(point, {"batch_size": batch_sizes, "gamma": [1, 2]}), finished=())


@dataclass
class Swept:
    """What came of one sweep, and what its engines wrote down."""

    outcomes: dict[tuple[int, int, int], Outcome]  # by ranks, batch size and gamma
    folder: Path
    placements: list[str]
    closing_s: float

    def of(self, batch_size, *, ranks=2):
        return [self.outcomes[ranks, batch_size, gamma] for gamma in (0, 1, 2)]

    def pids(self, what, ranks):
        found = self.folder.glob(f"{what}_{ranks}_*")
        return [tuple(map(int, path.name.split("_")[2:])) for path in found]


@pytest.fixture(scope="module")
def executor():
    """On four processors and four devices, which no one looks at."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local",
        num_cpus=4,
        num_gpus=4,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    settings = ClusterSettings(rule=RetryRule(attempts=1, on_error=1), close_s=3.0)
    executor = RayExecutor(MeetingEngine, terms, settings)
    yield executor
    executor.close()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def swept(executor, tmp_path_factory):
    """One sweep over two ranks in which most things go wrong, and one beside it over one rank."""
    folder = tmp_path_factory.mktemp("ranks")
    todo = groups_of(base(folder), [8])
    todo += groups_of(base(folder, dp_size=2), [8, 10, DIES, HANGS, APART, TOO_BIG])
    arrived = [o for arrival in executor.run(todo) for o in arrival.outcomes]
    by_point = {(o.point.layout.dp_size, o.point.batch_size, o.point.gamma): o for o in arrived}
    assert len(by_point) == len(arrived) == 7 * 3
    began = time.monotonic()
    executor.release()
    closing_s = time.monotonic() - began
    return Swept(by_point, folder, states(), closing_s)


def states() -> list[str]:
    """Of all placement groups; Ray removes them behind the caller's back, within moments."""
    deadline = time.monotonic() + 5.0
    while True:
        found = [entry["state"] for entry in placement_group_table().values()]
        if set(found) == {"REMOVED"} or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def test_ranks_that_have_to_meet_measure_and_are_merged(swept):
    for outcome in swept.of(8):
        assert isinstance(outcome, Measurement), outcome
        assert [r.tokens for r in outcome.repeats] == [40, 40]
        assert [r.seconds for r in outcome.repeats] == [2.0, 2.0]  # rank 1 is the slower


def test_a_gang_that_works_is_kept_for_the_next_group(swept):
    assert {o.host for o in swept.of(8)} == {o.host for o in swept.of(10)}
    assert len(swept.of(8)[0].host.split(", ")) == 2


@pytest.mark.parametrize(
    ("batch_size", "reason"),
    [
        pytest.param(DIES, "rank 1 of 2: its worker died", id="one dies"),
        pytest.param(HANGS, "rank 1 of 2: MemoryError: no room", id="one raises, the other hangs"),
    ],
)
def test_a_rank_that_breaks_fails_its_group_by_name(swept, batch_size, reason):
    for outcome in swept.of(batch_size):
        assert isinstance(outcome, Failed)
        assert reason in outcome.reason
        assert "== rank 1 of 2 ==" in outcome.log


def test_the_next_group_gets_fresh_ranks_each_time(swept):
    assert all(isinstance(swept.of(TOO_BIG)[gamma], Measurement) for gamma in (0, 2)), swept.of(
        TOO_BIG
    )
    assert sorted(rank for rank, _ in swept.pids("started", 2)) == [0] * 3 + [1] * 3
    assert swept.of(TOO_BIG)[0].host != swept.of(8)[0].host


def test_a_point_that_one_rank_cannot_hold_is_skipped_by_all(swept):
    outcome = swept.of(TOO_BIG)[1]
    assert isinstance(outcome, Infeasible)
    assert outcome.reason == "rank 1 is full"


def test_ranks_go_the_same_way_when_one_cannot_take_turns(swept):
    assert all(isinstance(outcome, Measurement) for outcome in swept.of(APART))


def test_every_engine_is_closed_but_one_that_died_and_one_that_hung(swept):
    lost = set(swept.pids("started", 2)) - set(swept.pids("closed", 2))
    assert sorted(rank for rank, _ in lost) == [0, 1]
    assert len(swept.pids("started", 1)) == len(swept.pids("closed", 1)) == 1
    assert swept.closing_s < 3.0


def test_the_room_of_the_ranks_is_given_back(swept):
    assert set(swept.placements) == {"REMOVED"}


def test_each_rank_has_its_own_devices_one_for_each_tensor_parallel_part(swept):
    """Three gangs on the same four devices, so each device was somebody's three times."""
    seen = [path.read_text().split(",") for path in swept.folder.glob("started_2_*")]
    assert all(len(devices) == 2 for devices in seen)
    assert Counter(chain.from_iterable(seen)) == dict.fromkeys("0123", 3)
    (single,) = swept.folder.glob("started_1_*")
    assert len(single.read_text().split(",")) == 2


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        pytest.param(
            {"dp_size": 3},
            "3 data-parallel ranks need 3 x 1 CPUs and 2 GPUs on one node; .* have 4 and 4;",
            id="too many ranks",
        ),
        pytest.param(
            {"tp_size": 8}, "an engine needs 1 CPUs and 8 GPUs on one node", id="a rank too large"
        ),
    ],
)
def test_ranks_that_no_cluster_here_could_hold_are_refused_at_once(
    executor, tmp_path, layout, message
):
    point = base(tmp_path)
    point = replace(point, layout=replace(point.layout, **layout))
    with pytest.raises(ValueError, match=message):
        list(executor.run(groups_of(point, [8])))


def test_ranks_are_not_for_a_single_process(tmp_path):
    made = []
    todo = groups_of(base(tmp_path), [8]) + groups_of(base(tmp_path, dp_size=2), [8])
    with pytest.raises(ValueError, match=r"launcher=ray, or layout\.dp_size=1"):
        list(InlineExecutor(made.append, lambda _: LoadLimit()).run(todo))
    assert made == []
