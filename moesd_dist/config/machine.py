"""On what it runs: a device, its figures, and how many of them share a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from moesd_dist.config.checks import at_least, one_of
from moesd_dist.records import Device


class ForeignLoadPolicy(StrEnum):
    """What happens where others use the processor or our GPUs.

    `wait`: a group begins when they have gone, or is flagged if they do not go in time.
    """

    flag = "flag"
    wait = "wait"
    refuse = "refuse"


@dataclass
class FiguresConf:
    """Peak figures of one device (`theory.device`); null is unknown. The last three are optional."""

    flops: float | None = None
    bytes_per_s: float | None = None
    memory_bytes: float | None = None
    clock_hz: float | None = None
    link_bytes_per_s: float | None = None
    link_latency_s: float | None = None
    inter_link_bytes_per_s: float | None = None
    inter_link_latency_s: float | None = None
    devices_per_node: int | None = None


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
    accelerator: str = ""  # Ray's node label ray.io/accelerator-type; empty: any
    labels: dict[str, str] = field(default_factory=dict)  # further node labels
    foreign_load: ForeignLoadPolicy = ForeignLoadPolicy.flag
    foreign_load_cores: float = 0.5
    foreign_load_wait_s: float = 300.0
    pin: str = ""  # the cores of every engine, such as 2-5; empty: as the system has it
    figures: FiguresConf = field(default_factory=FiguresConf)
    achieved: AchievedConf = field(default_factory=AchievedConf)

    def __post_init__(self) -> None:
        at_least("hardware.threads", self.threads, 1)
        at_least("hardware.foreign_load_wait_s", self.foreign_load_wait_s, 0)
        if self.pin and (self.gpus_per_engine or not self.whole_node):
            raise ValueError(
                "hardware.pin gives every engine the same cores, so a node must hold one engine: "
                f"gpus_per_engine 0 and whole_node true; got {self.gpus_per_engine} and "
                f"{str(self.whole_node).lower()}; leave hardware.pin away"
            )


@dataclass
class LayoutConf:
    """`ep_size` follows from the others: all ranks share the experts, or none do."""

    tp_size: int = 1
    dp_size: int = 1
    nodes: int = 1  # that the data-parallel ranks are spread over, evenly
    expert_parallel: bool = False
    ep_size: int | None = None
    all2all_backend: str = ""
    expert_placement: str = ""
    expert_loads: str = ""  # measured loads, for a balanced placement
    redundant_experts: int = 0
    eplb: bool = False

    def __post_init__(self) -> None:
        for name in ("tp_size", "dp_size", "nodes", "ep_size"):
            at_least(f"layout.{name}", getattr(self, name), 1)
        at_least("layout.redundant_experts", self.redundant_experts, 0)
        one_of(
            "layout.expert_placement",
            self.expert_placement,
            ("", "linear", "round_robin", "balanced"),
        )
        balanced = self.expert_placement == "balanced"
        if self.redundant_experts and not (self.eplb or balanced):
            raise ValueError(
                "layout.redundant_experts are placed by measured loads; set layout.eplb=true (vLLM) "
                "or layout.expert_placement=balanced (transformers)"
            )
        if bool(self.expert_loads) is not balanced:
            raise ValueError(
                "layout.expert_placement=balanced and layout.expert_loads=FILE go together; "
                "python -m analysis.expert_loads writes such a file from a finished sweep"
            )

    @property
    def ranks_sharing_experts(self) -> int:
        """ep_size; ValueError where the one given is not what the other sizes make."""
        derived = self.tp_size * self.dp_size if self.expert_parallel else 1
        if self.ep_size not in (None, derived):
            raise ValueError(
                f"ep_size is tp_size {self.tp_size} x dp_size {self.dp_size} with "
                f"layout.expert_parallel=true and 1 without: {derived} here, got {self.ep_size}; "
                "leave layout.ep_size away"
            )
        if not self.expert_parallel and (
            self.eplb or self.all2all_backend or self.expert_placement
        ):
            raise ValueError(
                "all2all_backend, expert_placement and eplb are of expert parallelism; "
                "set layout.expert_parallel=true"
            )
        return derived
