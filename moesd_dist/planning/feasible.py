"""Which points cannot fit in memory, by arithmetic: weights and full caches, before an engine is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import psutil

from moesd_dist.config import Conf
from moesd_dist.engines.analytic import AnalyticEngine
from moesd_dist.engines.vllm.memory import needed_bytes
from moesd_dist.engines.vllm.settings import SEQUENCES
from moesd_dist.models.counts import known_shape
from moesd_dist.models.shape import bytes_per_value
from moesd_dist.models.sources import weight_file_bytes
from moesd_dist.planning.expected import conf_of
from moesd_dist.records import Device, Infeasible, ModelSpec, SweepPoint
from moesd_dist.sweep.grouping import EngineKey, Group, engine_key
from moesd_dist.sweep.schedule.pace import prompts

Check = Callable[[SweepPoint], Infeasible | None]


def infeasible(group: Group, confs: Sequence[Conf]) -> list[Infeasible]:
    """Those of its wanted points that cannot fit; all of them where the baseline cannot."""
    key = engine_key(group)
    check = _check(key, conf_of(confs, engine=key.engine, hardware=key.hardware))
    if because := check(group.baseline):
        return [_of(point, because.reason) for point in group.wanted]
    return [found for point in group.wanted if (found := check(point)) is not None]


def _check(key: EngineKey, conf: Conf) -> Check:
    if key.simulation is not None:
        engine = AnalyticEngine(
            target=key.target,
            draft=key.draft,
            simulation=key.simulation,
            hardware=key.hardware,
            layout=key.layout,
        )
        return engine.infeasible
    available, where = _device_bytes(conf)

    def check(point: SweepPoint) -> Infeasible | None:
        needed = _vllm_bytes(point) if key.engine == "vllm" else _pair_bytes(key, point)
        if available is None or needed <= available:
            return None
        return _of(
            point,
            f"needs {needed / 2**30:.1f} GiB of memory, {where} has {available / 2**30:.1f} GiB",
        )

    return check


def _device_bytes(conf: Conf) -> tuple[float | None, str]:
    """Of one device; unknown for a GPU without figures and for processors elsewhere."""
    hardware = conf.hardware
    if hardware.figures.memory_bytes is not None:
        return hardware.figures.memory_bytes, hardware.name
    if hardware.device is Device.cpu and not conf.cluster.address:
        return float(psutil.virtual_memory().available), "this machine"
    return None, ""


def _vllm_bytes(point: SweepPoint) -> float:
    """Of one device of a rank, with the room for sequences that an engine takes."""
    share = -(-point.batch_size // point.layout.dp_size)
    return needed_bytes(point, max(SEQUENCES, 1 << (share - 1).bit_length()))


def _pair_bytes(key: EngineKey, point: SweepPoint) -> float:
    """Of the transformers engine, which holds both models while it measures the baseline too."""
    return sum(_model_bytes(spec, point) for spec in (key.target, key.draft) if spec)


def _model_bytes(spec: ModelSpec, point: SweepPoint) -> float:
    """Weights, the prefilled prompts, and a full cache; a hub name or an unknown family: its files."""
    try:
        shape, size = known_shape(spec), bytes_per_value(spec.dtype)
    except ValueError:
        return float(weight_file_bytes(spec))
    work = point.workload
    longest = work.prompt_tokens_max + work.output_tokens + 2 * (point.gamma + 1)
    slots = prompts(point) * work.prompt_tokens_max + point.batch_size * longest
    return shape.weight_bytes(size) + slots * shape.kv_bytes_per_token(size)


def _of(point: SweepPoint, reason: str) -> Infeasible:
    return Infeasible(point=point, reason=reason)
