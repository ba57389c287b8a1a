"""Hydra's schemas: mutable and dumb, checked here, turned into frozen records by `build`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from moesd_dist.records import Device, DraftMethod, ModelSource
from moesd_dist.theory.choices.design import Objective

_PACKAGE = Path(__file__).resolve().parent
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"


class Launcher(StrEnum):
    """Where engines live: in Ray actors, or in this process."""

    ray = "ray"
    inline = "inline"


class ForeignLoadPolicy(StrEnum):
    """What happens to a repeat during which others used the processor."""

    flag = "flag"
    refuse = "refuse"


class EngineKind(StrEnum):
    transformers = "transformers"
    analytic = "analytic"


@dataclass
class WidenConf:
    hidden: int = 1
    expert: int = 1
    heads: int = 1


@dataclass
class ModelConf:
    name: str = MISSING
    source: ModelSource = MISSING
    location: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    num_layers: int | None = None
    top_k: int | None = None
    widen: WidenConf = field(default_factory=WidenConf)
    dtype: str = "bfloat16"
    seed: int = 0
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        one_of("model.dtype", self.dtype, ("bfloat16", "float16", "float32"))


@dataclass
class SdConf:
    method: DraftMethod = DraftMethod.draft_model
    draft: ModelConf | None = None
    ngram_min: int = 2
    ngram_max: int = 4
    synthetic_acceptance: list[float] = field(default_factory=list)
    acceptance: str = ""
    repeat_last_rate: bool = False

    def __post_init__(self) -> None:
        if self.acceptance and plain(self.synthetic_acceptance):
            raise ValueError(
                "sd.acceptance and sd.synthetic_acceptance both give rates; leave one of them empty"
            )
        for rate in plain(self.synthetic_acceptance):
            between("sd.synthetic_acceptance", rate, 0.0, 1.0)


@dataclass
class WorkloadConf:
    name: str = "stdlib_code"
    path: str = ""
    prompt_tokens_min: int = 32
    prompt_tokens_max: int = 64
    output_tokens: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("workload.prompt_tokens_min", self.prompt_tokens_min, 2)
        at_least("workload.prompt_tokens_max", self.prompt_tokens_max, self.prompt_tokens_min)
        at_least("workload.output_tokens", self.output_tokens, 1)


@dataclass
class FiguresConf:
    """Peak figures of one device (`theory.device`); null is unknown."""

    flops: float | None = None
    bytes_per_s: float | None = None
    memory_bytes: float | None = None
    clock_hz: float | None = None
    link_bytes_per_s: float | None = None
    link_latency_s: float | None = None


@dataclass
class AchievedConf:
    """What an engine makes of them (`theory.operations`): learned by `theory.calibration`.

    From MoESD's 24 rows of 2xA800, so of vLLM with CUDA graphs in 2025: an engine's figures, not
    measured on any other device. docs/transfer.md has their intervals.
    """

    memory_efficiency: float = 0.791
    compute_efficiency: float = 0.118
    logit_passes: float = 15.0
    forward_overhead_s: float = 1.87e-3
    layer_overhead_s: float = 97.3e-6
    clocked_share: float = 0.5
    round_overhead_s: float = 5.43e-3


@dataclass
class HardwareConf:
    name: str = "cpu"
    device: Device = Device.cpu
    threads: int = 1
    cpus_per_engine: int = 1
    gpus_per_engine: int = 0
    whole_node: bool = True
    foreign_load: ForeignLoadPolicy = ForeignLoadPolicy.flag
    foreign_load_cores: float = 0.5
    figures: FiguresConf = field(default_factory=FiguresConf)
    achieved: AchievedConf = field(default_factory=AchievedConf)

    def __post_init__(self) -> None:
        at_least("hardware.threads", self.threads, 1)


@dataclass
class LayoutConf:
    tp_size: int = 1
    dp_size: int = 1
    ep_size: int = 1

    def __post_init__(self) -> None:
        for name in ("tp_size", "dp_size", "ep_size"):
            at_least(f"layout.{name}", getattr(self, name), 1)


@dataclass
class EngineConf:
    kind: EngineKind = EngineKind.transformers
    experts_implementation: str = "auto"
    fit: str = ""  # analytic: a saved fit instead of hardware figures
    noise: float = 0.0  # analytic: standard deviation of the logarithm of a repeat's seconds

    def __post_init__(self) -> None:
        one_of("engine.experts_implementation", self.experts_implementation, ("auto", "packed", "grouped_mm"))  # fmt: skip
        at_least("engine.noise", self.noise, 0.0)
        if self.kind is not EngineKind.analytic and (self.fit or self.noise):
            raise ValueError("engine.fit and engine.noise are for predictions; use engine=analytic")


@dataclass
class ClusterConf:
    address: str = ""


@dataclass
class TrackingConf:
    uri: str = "sqlite:///mlflow.db"
    experiment: str = "moesd-dist"


@dataclass
class AdaptiveConf:
    """Counts are of SD points; each brings its baseline."""

    objective: Objective = Objective.recommendation
    budget: int = 12
    per_round: int = 2
    start: int = 4
    target_interval: float = 0.03

    def __post_init__(self) -> None:
        at_least("sweep.adaptive.per_round", self.per_round, 1)
        at_least("sweep.adaptive.target_interval", self.target_interval, 0)
        at_least("sweep.adaptive.start", self.start, 4)  # what a fit of step times needs
        if self.budget < self.start:
            raise ValueError(
                f"sweep.adaptive.budget {self.budget} is below its start of {self.start} points; "
                "raise it, or lower sweep.adaptive.start to 4 or more"
            )


@dataclass
class SweepConf:
    """Axes are lists; one value is a list of one. `+sweep.axes={workload.seed: [0, 1]}` sweeps any other field."""

    name: str = "sweep"
    batch_size: list[int] = field(default_factory=lambda: [1])
    gamma: list[int] = field(default_factory=lambda: [0])
    top_k: list[int] = field(default_factory=list)
    temperature: list[float] = field(default_factory=lambda: [0.0])
    workload: list[str] = field(default_factory=list)
    axes: dict[str, Any] = field(default_factory=dict)
    control: bool = False
    repeats: int = 5
    warmup_rounds: int = 2
    window_tokens: int = 128
    end_to_end_repeats: int = 1
    adaptive: AdaptiveConf | None = None  # null measures every point

    def __post_init__(self) -> None:
        for value in plain(self.batch_size):
            at_least("sweep.batch_size", value, 1)
        for value in plain(self.gamma):
            at_least("sweep.gamma", value, 0)
        for value in plain(self.top_k):
            at_least("sweep.top_k", value, 1)
        for value in plain(self.temperature):
            at_least("sweep.temperature", value, 0)
        for name in ("batch_size", "gamma", "temperature"):
            if not plain(getattr(self, name)):
                raise ValueError(f"sweep.{name} is an empty list; give at least one value")
        at_least("sweep.repeats", self.repeats, 1)
        at_least("sweep.warmup_rounds", self.warmup_rounds, 1)


@dataclass
class Conf:
    """The whole configuration of `python -m moesd_dist`."""

    model: ModelConf = MISSING
    sd: SdConf = MISSING
    workload: WorkloadConf = MISSING
    hardware: HardwareConf = MISSING
    layout: LayoutConf = MISSING
    engine: EngineConf = MISSING
    cluster: ClusterConf = MISSING
    tracking: TrackingConf = MISSING
    sweep: SweepConf = MISSING
    launcher: Launcher = Launcher.ray
    output: str = MISSING


def register() -> None:
    """Makes the schemas known to Hydra under `schema/`, for the files of `conf/` to extend."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Conf)
    groups = {
        "model": ModelConf, "sd": SdConf, "workload": WorkloadConf, "hardware": HardwareConf,
        "layout": LayoutConf, "engine": EngineConf, "cluster": ClusterConf,
        "tracking": TrackingConf, "sweep": SweepConf,
    }  # fmt: skip
    for group, node in groups.items():
        store.store(group="schema", name=group, node=node)


def plain(values: Any) -> list[Any]:
    """A list's values; nothing for a value that is still to be given."""
    return list(values) if isinstance(values, list) else []


def at_least(name: str, value: Any, least: float) -> None:
    if value is not None and not isinstance(value, str) and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must lie between {low} and {high}, got {value}")


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed and value != MISSING:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
