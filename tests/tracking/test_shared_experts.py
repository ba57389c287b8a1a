"""Points whose ranks share experts: found by their layout, kept whole, carried in short."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from moesd_dist.records import LayoutSpec, Measurement
from moesd_dist.records.serial import measurement_from_plain
from moesd_dist.records.slim import without_expert_load
from moesd_dist.sweep.statistics import metrics
from moesd_dist.tracking.labels import point_params, run_name
from moesd_dist.tracking.mlflow_runs import children, connect
from moesd_dist.tracking.packing import pack, unpack
from tests.records.known_exchange import exchange, trace

from .conftest import MakeMeasurement, MakePoint, OpenTracker


@pytest.fixture
def shared(make_point: MakePoint, make_measurement: MakeMeasurement) -> Measurement:
    layout = LayoutSpec(dp_size=4, ep_size=4, nodes=2, expert_placement="round_robin")
    measured = make_measurement(make_point(layout=layout))
    seen = exchange([trace(rank, load=96 + rank) for rank in range(4)])
    repeats = [
        tuple(replace(r, exchange=seen, layer_forwards=8) for r in of)
        for of in (measured.repeats, measured.baseline)
    ]
    return replace(measured, repeats=repeats[0], baseline=repeats[1])


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        pytest.param({}, "B=8 gamma=3", id="a rank alone"),
        pytest.param({"dp_size": 2, "ep_size": 2}, "B=8 gamma=3 EP=2", id="shared"),
        pytest.param({"ep_size": 4, "nodes": 2}, "B=8 gamma=3 EP=4 nodes=2", id="over nodes"),
        pytest.param(
            {"ep_size": 4, "expert_placement": "balanced", "all2all_backend": "naive"},
            "B=8 gamma=3 EP=4 balanced naive",
            id="placed and sent otherwise",
        ),
    ],
)
def test_a_run_is_named_for_its_layout(
    make_point: MakePoint, layout: dict[str, Any], name: str
) -> None:
    assert run_name(make_point(layout=LayoutSpec(**layout))) == name


def test_the_layout_can_be_searched_for(make_point: MakePoint, shared: Measurement) -> None:
    names = ("dp_size", "ep_size", "nodes", "expert_placement", "all2all_backend", "expert_loads")
    params = point_params(shared.point)
    assert [params[n] for n in names] == ["4", "4", "2", "round_robin", "default", "none"]
    alone = point_params(make_point())
    assert [alone[n] for n in names] == ["1", "1", "1", "default", "default", "none"]


def test_the_artifact_has_every_rank_and_layer_and_the_tags_their_sums(
    open_tracker: OpenTracker, shared: Measurement, uri: str
) -> None:
    open_tracker(shared.point).record(shared, metrics(shared))
    client = connect(uri)
    experiment = client.get_experiment_by_name("moesd").experiment_id
    (parent,) = client.search_runs([experiment], "tags.`moesd.kind` = 'sweep'")
    (run,) = children(client, experiment, parent.info.run_id)
    kept = Path(unquote(urlsplit(run.info.artifact_uri).path), "measurement.json")
    assert measurement_from_plain(json.loads(kept.read_text())) == shared
    assert unpack(run.data.tags) == without_expert_load(shared) != shared
    assert run.data.metrics["load_imbalance"] == pytest.approx(99 / 97.5)
    assert run.data.params["nodes"] == "2"


def test_tags_do_not_grow_with_layers(shared: Measurement) -> None:
    """48 layers on 4 ranks would be hundreds of kilobytes."""
    deep = replace(shared, repeats=tuple(map(_deep, shared.repeats)), baseline=())
    assert len(pack(deep)) <= len(pack(replace(shared, baseline=()))) + 1


def _deep(repeat: Any) -> Any:
    ranks = tuple(
        replace(t, expert_s=tuple(1e-3 / 7 * i for i in range(48)), load=tuple(range(48)))
        for t in repeat.exchange.ranks
    )
    return replace(repeat, exchange=replace(repeat.exchange, ranks=ranks))
