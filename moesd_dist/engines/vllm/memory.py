"""What a vLLM engine takes of one device, and what is free there."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

import psutil

from moesd_dist.engines.vllm.settings import known_shape, kv_bytes, target_of
from moesd_dist.models.shape import bytes_per_value
from moesd_dist.models.sources import resolve_config, weight_file_bytes
from moesd_dist.records import Device, LayoutSpec, ModelSpec, SweepPoint

# Beside weights and caches: the process itself; on a GPU its context, graphs and activations too.
RUNTIME_BYTES = {Device.cpu: 2**30, Device.cuda: 6 * 2**30}
KV_MARGIN = 1.25  # blocks are whole, and one more sequence than the batch may be in flight


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Bytes of the fullest device this process may use."""

    free: int
    total: int


def device_memory(device: Device) -> DeviceMemory:
    if device is Device.cpu:
        memory = psutil.virtual_memory()
        return DeviceMemory(free=int(memory.available), total=int(memory.total))
    return _gpu_memory()


def needed_bytes(point: SweepPoint, sequences: int) -> int:
    """Per device; weights of an unknown family by their files, 0 where neither is known."""
    weights = sum(_weight_bytes(spec, point.layout) for spec in _models(point))
    return int(weights + cache_bytes(point, sequences) + RUNTIME_BYTES[point.device])


def cache_bytes(point: SweepPoint, sequences: int) -> int:
    """Of the KV cache, per device; at least 64 MiB."""
    return max(64 * 2**20, int(KV_MARGIN * kv_bytes(point, sequences)))


def cuda_arguments(point: SweepPoint, sequences: int, memory: DeviceMemory) -> dict[str, float]:
    """A cache of the size that is needed, so that baseline and SD fit on one device side by side.

    vLLM refuses to start where less than its share of the device is free, so the share is told too.
    Nothing is told of a model that fills the device.
    """
    if fills_device(point):
        return {}
    share = needed_bytes(point, sequences) / memory.total
    return {
        "kv_cache_memory_bytes": cache_bytes(point, sequences),
        "gpu_memory_utilization": round(min(0.95, max(0.05, share)), 3),
    }


def fills_device(point: SweepPoint) -> bool:
    """Whether vLLM itself must size the cache, from all that is free: on a GPU, for a model whose
    config is not here or not understood."""
    known = all(known_shape(spec) for spec in _models(point))
    return point.device is Device.cuda and not known


def _models(point: SweepPoint) -> list[ModelSpec]:
    return [target_of(point)] + ([point.sd.draft] if point.gamma and point.sd.draft else [])


def _weight_bytes(spec: ModelSpec, layout: LayoutSpec) -> float:
    shape, size = known_shape(spec), float(bytes_per_value(spec.dtype))
    if shape is None:
        return weight_file_bytes(spec) / layout.tp_size
    if "quantization_config" in (resolve_config(spec) or {}):  # smaller than its dtype says
        size *= weight_file_bytes(spec) / shape.weight_bytes(size)
    experts = shape.routed_expert_params * size
    rest = shape.weight_bytes(size) - experts
    return rest / layout.tp_size + experts / max(layout.tp_size, layout.ep_size)


def _gpu_memory() -> DeviceMemory:
    """By nvidia-smi: asking CUDA would take half a gigabyte of the memory that is asked for."""
    question = [
        "nvidia-smi",
        "--query-gpu=memory.free,memory.total",
        "--format=csv,noheader,nounits",
    ]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):  # Ray tells an actor its own
        question.append(f"--id={visible}")
    try:
        answer = subprocess.run(question, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(
            f"device cuda needs an NVIDIA driver that nvidia-smi can ask: {error}; use hardware=cpu"
        ) from error
    rows = [
        [int(field) * 2**20 for field in line.split(",")] for line in answer.stdout.splitlines()
    ]
    free, total = min(rows)
    return DeviceMemory(free=free, total=total)
