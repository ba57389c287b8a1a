"""Records squeezed into tags."""

from __future__ import annotations

import random
import string
from dataclasses import replace

from moesd_dist.records import Infeasible
from moesd_dist.records.slim import without_expert_load
from moesd_dist.tracking.packing import pack, unpack

from .conftest import MakeMeasurement, MakePoint


def test_a_packed_measurement_comes_back_without_its_expert_load(
    make_point: MakePoint, make_measurement: MakeMeasurement
) -> None:
    measurement = make_measurement(make_point())
    assert unpack(pack(measurement)) == without_expert_load(measurement) != measurement


def test_a_long_record_is_spread_over_tags_of_a_length_every_store_takes(
    make_point: MakePoint,
) -> None:
    noise = "".join(random.Random(0).choices(string.ascii_letters, k=30_000))
    outcome = replace(Infeasible(point=make_point(), reason=""), reason=noise)
    tags = pack(outcome)
    assert len(tags) > 2
    assert max(map(len, tags.values())) <= 5000
    assert unpack({"moesd.kind": "point"} | tags) == outcome
