"""What engines occupy by their configuration, and what they load."""

from __future__ import annotations

from typing import Any

import pytest

from moesd_dist.config import Conf, EngineConf, EngineKind, HardwareConf
from moesd_dist.hardware import hardware_named
from moesd_dist.planning.expected import needs_of, weight_bytes
from moesd_dist.records import Device, LayoutSpec, ModelSource, ModelSpec
from moesd_dist.sweep.grouping import EngineKey
from moesd_dist.sweep.schedule.needs import Needs

EMBEDDED = ModelSpec(name="embedded", source=ModelSource.embedded, location="target")
H200 = (("ray.io/accelerator-type", "H200"),)


def key(engine: str, hardware: str, **layout: Any) -> EngineKey:
    return EngineKey(
        engine=engine,
        target=EMBEDDED,
        draft=None,
        hardware=hardware,
        device=Device.cpu.value,
        threads=1,
        experts_implementation="auto",
        layout=LayoutSpec(**layout),
    )


def conf(kind: EngineKind, hardware: HardwareConf) -> Conf:
    return Conf(engine=EngineConf(kind=kind), hardware=hardware)


@pytest.mark.parametrize(
    ("asked", "hardware", "needs"),
    [
        pytest.param(
            key("vllm", "H200", tp_size=8),
            hardware_named("H200"),
            Needs(gpus=8, labels=H200),
            id="tensor parallel on one node",
        ),
        pytest.param(
            key("vllm", "H200", dp_size=16, nodes=2),
            hardware_named("H200"),
            Needs(ranks=16, nodes=2, gpus=1, labels=H200),
            id="ranks over two nodes",
        ),
        pytest.param(
            key("transformers", "cpu"),
            HardwareConf(labels={"pool": "bare metal"}),
            Needs(whole_node=True, labels=(("pool", "bare metal"),)),
            id="a processor has its node to itself",
        ),
        pytest.param(
            key("transformers", "cuda"),
            hardware_named("cuda"),
            Needs(gpus=1),
            id="any GPU will do",
        ),
        pytest.param(
            key("analytic", "H200", tp_size=8),
            hardware_named("H200"),
            Needs(),
            id="a formula takes a CPU of any node",
        ),
    ],
)
def test_an_engine_occupies_what_its_layout_says(
    asked: EngineKey, hardware: HardwareConf, needs: Needs
) -> None:
    assert needs_of([conf(EngineKind(asked.engine), hardware)], asked) == needs


def test_each_engine_goes_by_the_configuration_of_its_own() -> None:
    confs = [
        conf(EngineKind.transformers, hardware_named("cpu")),
        conf(EngineKind.vllm, hardware_named("H200")),
    ]
    assert needs_of(confs, key("vllm", "H200")).gpus == 1
    assert needs_of(confs, key("transformers", "cpu")).gpus == 0


def test_ranks_are_spread_evenly_or_refused() -> None:
    confs = [conf(EngineKind.vllm, hardware_named("H200"))]
    with pytest.raises(ValueError, match=r"layout\.nodes 3 does not divide the 8"):
        needs_of(confs, key("vllm", "H200", dp_size=8, nodes=3))


def test_ranks_that_share_experts_load_their_part_of_them() -> None:
    alone = weight_bytes(EMBEDDED, LayoutSpec())
    copied = weight_bytes(EMBEDDED, LayoutSpec(dp_size=4))
    shared = weight_bytes(EMBEDDED, LayoutSpec(dp_size=4, ep_size=4))
    assert copied == alone
    assert alone / 4 < shared < alone


def test_a_hub_name_weighs_what_is_known_of_it() -> None:
    hub = ModelSpec(name="name", source=ModelSource.checkpoint, location="org/name")
    assert weight_bytes(hub, LayoutSpec()) == 0.0
