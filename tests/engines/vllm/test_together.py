"""Whether the LLMs of a group can be loaded side by side; nothing is started to find out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from moesd_dist.engines.vllm.engine import VllmEngine
from moesd_dist.engines.vllm.host import Timeouts
from moesd_dist.records import Device, ModelSource, ModelSpec, RankPlace
from tests.engines.vllm.points import FIXED, PAIR, point

pytestmark = pytest.mark.usefixtures("vllm_env")
HUB = ModelSpec(name="hub", source=ModelSource.checkpoint, location="org/name")


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    engine = VllmEngine(device=Device.cpu, place=RankPlace(), timeouts=Timeouts())
    yield engine
    engine.close()


@pytest.mark.parametrize(
    ("points", "fit"),
    [
        pytest.param([point().baseline, point(sd=FIXED)], True, id="two small ones"),
        pytest.param(
            [point(gamma=gamma, sd=PAIR) for gamma in range(1, 101)], False, id="a hundred of them"
        ),
        pytest.param(
            [point(target=HUB, sd=FIXED, device=Device.cuda, gamma=gamma) for gamma in (0, 1)],
            False,
            id="each of them fills its GPU",
        ),
    ],
)
def test_as_many_fit_as_memory_has_room_for(engine, points, fit):
    assert engine.together(points) is fit


def test_a_batch_beyond_memory_is_infeasible_even_while_room_could_be_made(engine):
    found = engine.infeasible(point(batch_size=2**24))
    assert found is not None
    assert found.bytes_needed > found.bytes_available > 0
    assert engine.infeasible(point()) is None
