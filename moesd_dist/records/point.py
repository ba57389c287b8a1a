"""One point of a sweep: everything that has to be equal for two measurements to be of the same thing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from moesd_dist.records.identity import by_object, identity
from moesd_dist.records.simulation import SimulationSpec


class ModelSource(StrEnum):
    """Where weights come from; `shape` has none, so they are random."""

    embedded = "embedded"
    checkpoint = "checkpoint"
    shape = "shape"


class DraftMethod(StrEnum):
    """How draft tokens are proposed; `none` is the autoregressive baseline.

    `oracle` replays the reference continuation, each token spoilt with probability 1 - alpha;
    `fixed` proposes random tokens for nothing, so that verification alone costs.
    """

    none = "none"
    draft_model = "draft_model"
    ngram = "ngram"
    suffix = "suffix"
    eagle = "eagle"
    eagle3 = "eagle3"
    mtp = "mtp"
    medusa = "medusa"
    oracle = "oracle"
    fixed = "fixed"

    @property
    def needs_draft(self) -> bool:
        """Whether it proposes with weights of its own, beside the target's."""
        return self.value in ("draft_model", "eagle", "eagle3", "medusa")


class Device(StrEnum):
    cpu = "cpu"
    cuda = "cuda"


class Role(StrEnum):
    """`control` is a baseline measured as if it were SD: the A/A run that shows the noise.

    `sentinel` is one measured now and then to see whether the machine is still the same; it is
    never recorded.
    """

    baseline = "baseline"
    sd = "sd"
    control = "control"
    sentinel = "sentinel"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model by its source; `config` and `overrides` are Hugging Face config keys, values as JSON.

    `digest` names the content of weights on disk, so that their folder is no part of the identity
    and a retrained model is another one. A hub name has none: it stands for itself.
    """

    name: str
    source: ModelSource
    location: str = ""  # checkpoint: path or hub name; embedded: "target" or "draft"
    config: tuple[tuple[str, str], ...] = ()
    overrides: tuple[tuple[str, str], ...] = ()
    widen_hidden: int = 1
    widen_expert: int = 1
    widen_heads: int = 1
    dtype: str = "bfloat16"
    seed: int = 0  # of random weights
    trust_remote_code: bool = False
    digest: str = ""

    @property
    def anonymous(self) -> ModelSpec:
        """The same content wherever it lies."""
        return replace(self, location="") if self.digest else self


@dataclass(frozen=True, slots=True, kw_only=True)
class SdSpec:
    """The SD method. Rates in `synthetic_acceptance` are conditional: P(accepted | all before were).

    `alpha` is the oracle's, verified by the target. `schedule` is of (first batch size, last batch
    size, draft tokens); gamma is then the largest. `options` go to the engine as they are.
    """

    method: DraftMethod = DraftMethod.none
    draft: ModelSpec | None = None
    ngram_min: int = 2
    ngram_max: int = 4
    synthetic_acceptance: tuple[float, ...] = ()  # one: the same at all positions; empty: verified
    alpha: float | None = None
    schedule: tuple[tuple[int, int, int], ...] = ()
    options: tuple[tuple[str, str], ...] = ()  # values as JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """Which prompts; `digest` names the content of a file, so that its path is no part of the identity."""

    name: str
    prompt_tokens_min: int
    prompt_tokens_max: int
    output_tokens: int
    seed: int = 0
    digest: str = ""
    path: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutSpec:
    """World sizes; ep_size is how many ranks share the experts of a layer.

    The rest says how, where an engine has a choice; empty leaves the engine's own.
    """

    tp_size: int = 1
    dp_size: int = 1
    ep_size: int = 1
    nodes: int = 1  # that the data-parallel ranks are spread over, evenly
    all2all_backend: str = ""
    expert_placement: str = ""
    redundant_experts: int = 0
    eplb: bool = False  # experts are moved between ranks while the engine runs
    loads_digest: str = ""  # of the measured loads that a balanced placement was made from
    loads_path: str = field(default="", compare=False)


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
