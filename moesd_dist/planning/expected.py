"""What a sweep needs and takes by its configuration: room for its engines, and expected seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

from moesd_dist.config import Conf, HardwareConf
from moesd_dist.engines.analytic_model import zero_shot
from moesd_dist.hardware import achieved_of, device_figures
from moesd_dist.models.counts import counts_of, known_shape
from moesd_dist.models.shape import bytes_per_value
from moesd_dist.models.sources import weight_file_bytes
from moesd_dist.ports import TrackerUnavailable
from moesd_dist.records import LayoutSpec, Measurement, ModelSpec, SweepPoint
from moesd_dist.sweep.grouping import EngineKey, engine_key, groups
from moesd_dist.sweep.schedule.earlier import EarlierRuns, ScaledRuns
from moesd_dist.sweep.schedule.formula import ByFormula
from moesd_dist.sweep.schedule.learning import LearningCosts, Loading
from moesd_dist.sweep.schedule.needs import Needs
from moesd_dist.sweep.schedule.pace import Simulated
from moesd_dist.theory.counts import NO_MODEL
from moesd_dist.theory.steps.model import StepModel
from moesd_dist.tracking.reading import Store

_LIKE = ("engine", "target", "hardware")  # parameters of a run
ACCELERATOR = "ray.io/accelerator-type"  # Ray labels its nodes with it


def conf_of(confs: Sequence[Conf], *, engine: str, hardware: str) -> Conf:
    """Of the configurations of a sweep, one of that engine and hardware: in these they agree."""
    found = (c for c in confs if (c.engine.kind.value, c.hardware.name) == (engine, hardware))
    return next(found, confs[0])


def needs_of(confs: Sequence[Conf], key: EngineKey) -> Needs:
    """What an engine of this key occupies. A simulated one takes a CPU of any node."""
    if key.engine == "analytic":
        return Needs(cpus=1)
    hardware = conf_of(confs, engine=key.engine, hardware=key.hardware).hardware
    return needs_on(hardware, key.layout)


def needs_on(hardware: HardwareConf, layout: LayoutSpec) -> Needs:
    """What an engine over the ranks of a layout occupies."""
    labels = {ACCELERATOR: hardware.accelerator} if hardware.accelerator else {}
    return Needs(
        ranks=layout.dp_size,
        nodes=layout.nodes,
        cpus=max(hardware.cpus_per_engine, 1),
        gpus=hardware.gpus_per_engine * layout.tp_size,
        whole_node=hardware.whole_node,
        labels=tuple(sorted((labels | hardware.labels).items())),
    )


def costs_of(
    confs: Sequence[Conf],
    points: Sequence[SweepPoint],
    read_earlier: Callable[[], Iterable[Measurement]] = tuple,
) -> LearningCosts:
    """Prefers measurements of the very points, then of their like, then the analytic model.

    `read_earlier` is asked once, and only for points that are to be measured.
    """
    if all(point.simulated for point in points):
        return LearningCosts([Simulated()])
    earlier, formula = EarlierRuns(read_earlier), ByFormula(model_of=_models(confs))
    return LearningCosts([Simulated(), earlier, ScaledRuns(earlier), formula], _loadings(points))


def weight_bytes(spec: ModelSpec, layout: LayoutSpec) -> float:
    """On each rank, over all its devices; of a family that is not modelled, its files' bytes.

    Experts are shared out over all ranks with expert parallelism; everything else is on every rank.
    0 for a hub name, of which nothing is known here.
    """
    try:
        shape = known_shape(spec)
    except ValueError:
        return float(weight_file_bytes(spec))
    size = bytes_per_value(spec.dtype)
    experts, ranks = shape.routed_expert_params * size, max(1, layout.ep_size // layout.tp_size)
    return shape.weight_bytes(size) - experts + experts / ranks


def earlier_of(confs: Sequence[Conf], points: Sequence[SweepPoint]) -> list[Measurement]:
    """What the tracking store has of the same engines, targets and hardware.

    Nothing where the store does not answer: expected seconds are worth no failure.
    """
    tracking = confs[0].tracking
    store = Store(uri=tracking.uri, experiment=tracking.experiment)
    kinds = dict.fromkeys((p.engine, p.target.name, p.hardware) for p in points if not p.simulated)
    try:
        found = [store.measured(dict(zip(_LIKE, kind, strict=True))) for kind in kinds]
    except (ValueError, TrackerUnavailable):
        return []
    return [measurement for of_kind in found for measurement in of_kind]


def _models(confs: Sequence[Conf]) -> Callable[[SweepPoint], StepModel | None]:
    @cache
    def model(
        target: ModelSpec, draft: ModelSpec | None, tp_size: int, engine: str, hardware: str
    ) -> StepModel | None:
        conf = conf_of(confs, engine=engine, hardware=hardware)
        try:
            return zero_shot(
                counts_of(target),
                counts_of(draft) if draft else NO_MODEL,
                device_figures(conf.hardware),
                achieved_of(conf.hardware),
                tp_size=tp_size,
            )
        except ValueError:  # a hub name, an unknown family, a device without figures
            return None

    return lambda p: model(p.target, p.sd.draft, p.layout.tp_size, p.engine, p.hardware)


def _loadings(points: Sequence[SweepPoint]) -> dict[EngineKey, Loading]:
    """By engine; vLLM loads the target once for each SD setting, the others once."""
    members: dict[EngineKey, list[SweepPoint]] = {}
    for group in groups(points, ()):
        members.setdefault(engine_key(group), []).extend([group.baseline, *group.points])
    return {key: _loading(key, own) for key, own in members.items()}


def _loading(key: EngineKey, points: Sequence[SweepPoint]) -> Loading:
    if key.engine == "analytic":
        return Loading()
    settings = {(p.gamma, p.sd, p.top_k) for p in points}
    llms = len(settings) if key.engine == "vllm" else 1
    each = weight_bytes(key.target, key.layout) * llms
    draft = weight_bytes(key.draft, key.layout) if key.draft else 0.0
    return Loading(llms=llms, weight_bytes=each + draft)
