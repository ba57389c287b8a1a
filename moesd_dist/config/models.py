"""Which models, how tokens are drafted, and from which prompts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from moesd_dist.config.checks import at_least, between, one_of, plain
from moesd_dist.models.shape import BYTES_PER_VALUE
from moesd_dist.records import DraftMethod, ModelSource


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
        one_of("model.dtype", self.dtype, tuple(BYTES_PER_VALUE))


@dataclass
class SdConf:
    method: DraftMethod = DraftMethod.draft_model
    draft: ModelConf | None = None
    ngram_min: int = 2
    ngram_max: int = 4
    synthetic_acceptance: list[float] = field(default_factory=list)
    acceptance: str = ""
    repeat_last_rate: bool = False
    alpha: float | None = None
    schedule: list[list[int]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.acceptance and plain(self.synthetic_acceptance):
            raise ValueError(
                "sd.acceptance and sd.synthetic_acceptance both give rates; leave one of them empty"
            )
        for rate in plain(self.synthetic_acceptance):
            between("sd.synthetic_acceptance", rate, 0.0, 1.0)
        if self.alpha is not None:
            between("sd.alpha", self.alpha, 0.0, 1.0)
        for entry in plain(self.schedule):
            _check_entry(entry)


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


def _check_entry(entry: list[int]) -> None:
    if len(entry) != 3 or not 1 <= entry[0] <= entry[1] or entry[2] < 0:
        raise ValueError(
            "sd.schedule holds [first batch size, last batch size, draft tokens], "
            f"such as [1, 32, 3]; got {list(entry)}"
        )
