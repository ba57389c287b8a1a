"""One point of a sweep: everything that has to be equal for two measurements to be of the same thing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from moesd_dist.records.identity import by_object, identity
from moesd_dist.records.simulation import SimulationSpec
from moesd_dist.records.specs import (
    Device,
    DraftMethod,
    LayoutSpec,
    ModelSource,
    ModelSpec,
    Role,
    SdSpec,
    WorkloadSpec,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How a point is measured. Each repeat draws its own prompts, the same for baseline and SD.

    A timed window lasts until every sequence could have written its output once, and for at least
    `window_tokens` tokens, so that small batches see more than one prompt.
    """

    repeats: int = 5
    warmup_rounds: int = 2
    window_tokens: int = 128
    end_to_end_repeats: int = 1  # how many of the repeats also run a batch to its last straggler


class _Identified:
    """Room for an identity that has been worked out; no field of the record."""

    __slots__ = ("_point_id",)
    _point_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoint(_Identified):
    """One point; `gamma` 0 is the baseline. `top_k` None leaves the model's own.

    `batch_size` counts sequences over all data-parallel ranks. `engine_args` go to the engine as
    they are, values as JSON. `simulation` is for the analytic engine alone; a measured point has none.
    """

    engine: str
    target: ModelSpec
    workload: WorkloadSpec
    batch_size: int
    gamma: int
    sd: SdSpec = field(default_factory=SdSpec)
    temperature: float = 0.0
    top_k: int | None = None
    hardware: str = "cpu"
    device: Device = Device.cpu
    threads: int = 1
    experts_implementation: str = "auto"
    layout: LayoutSpec = field(default_factory=LayoutSpec)
    protocol: Protocol = field(default_factory=Protocol)
    role: Role = Role.sd
    simulation: SimulationSpec | None = None
    engine_args: tuple[tuple[str, str], ...] = ()
    cpu_fixes: bool = False  # our repairs of vLLM's CPU build are on: tests and demonstrations

    def __post_init__(self) -> None:
        # 1 and 1.0 are equal points and must have equal identities.
        object.__setattr__(self, "temperature", float(self.temperature))

    @property
    def point_id(self) -> str:
        """16 hex digits, equal for equal points on any machine."""
        try:
            return self._point_id
        except AttributeError:
            object.__setattr__(self, "_point_id", _identity(self))
            return self._point_id

    @property
    def baseline(self) -> SweepPoint:
        """The same engine, prompts and batch at gamma = 0."""
        return replace(self, gamma=0, sd=_NO_SD, role=Role.baseline)

    @property
    def simulated(self) -> bool:
        return self.engine == "analytic"

    @property
    def synthetic_acceptance(self) -> bool:
        """Acceptance was drawn from given rates instead of verified."""
        return bool(self.sd.synthetic_acceptance)

    @property
    def controlled_acceptance(self) -> bool:
        """Drafts were made to be accepted at a chosen rate; the target verified every one."""
        return self.sd.method in (DraftMethod.oracle, DraftMethod.fixed)

    @property
    def random_weights(self) -> bool:
        if ("load_format", '"dummy"') in self.engine_args:
            return True
        drafts = [self.sd.draft] if self.sd.draft else []
        return any(m.source is ModelSource.shape for m in (self.target, *drafts))

    @property
    def untimed(self) -> bool:
        """Repaired so that it works, not so that it is fast: its seconds would mean nothing."""
        layout = self.layout
        return self.cpu_fixes and (layout.ep_size > 1 or layout.dp_size > 1)


_NO_SD = SdSpec()


def _identity(point: SweepPoint) -> str:
    return identity(
        replace(
            point,
            target=_anonymous(point.target),
            sd=_of_anonymous_draft(point.sd),
            workload=_without_path(point.workload),
            simulation=_without_fit_path(point.simulation) if point.simulation else None,
            layout=_without_loads_path(point.layout),
        )
    )


# The parts are the same objects in all points of a grid.


@by_object
def _anonymous(model: ModelSpec) -> ModelSpec:
    return model.anonymous


@by_object
def _of_anonymous_draft(sd: SdSpec) -> SdSpec:
    return replace(sd, draft=sd.draft.anonymous if sd.draft else None)


@by_object
def _without_path(workload: WorkloadSpec) -> WorkloadSpec:
    return replace(workload, path="")


@by_object
def _without_loads_path(layout: LayoutSpec) -> LayoutSpec:
    return replace(layout, loads_path="")


@by_object
def _without_fit_path(simulation: SimulationSpec) -> SimulationSpec:
    return replace(simulation, fit_path="")
