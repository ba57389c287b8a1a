"""Which engine measures, and how it is set."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from moesd_dist.config.checks import at_least, between, one_of


class EngineKind(StrEnum):
    transformers = "transformers"
    vllm = "vllm"
    analytic = "analytic"


@dataclass
class EngineConf:
    kind: EngineKind = EngineKind.transformers
    experts_implementation: str = "auto"
    fit: str = ""  # analytic: a saved fit instead of hardware figures
    noise: float = 0.0  # analytic: standard deviation of the logarithm of a repeat's seconds
    hidden_share: float = 0.0  # analytic: of the traffic between ranks, behind computation
    args: dict[str, Any] = field(default_factory=dict)  # vllm: its EngineArgs, passed through
    cpu_fixes: bool = False  # vllm: our repairs of its CPU build, for tests and demonstrations
    start_timeout_s: float = 1800.0  # until all ranks have loaded, compiled, captured graphs
    answer_timeout_s: float = 900.0  # vllm: one repeat
    collective_timeout_s: float = 60.0  # transformers: how long ranks wait for each other

    def __post_init__(self) -> None:
        one_of("engine.experts_implementation", self.experts_implementation, ("auto", "packed", "grouped_mm"))  # fmt: skip
        at_least("engine.noise", self.noise, 0.0)
        between("engine.hidden_share", self.hidden_share, 0.0, 1.0)
        if self.kind is not EngineKind.analytic and (self.fit or self.noise or self.hidden_share):
            raise ValueError(
                "engine.fit, engine.noise and engine.hidden_share are for predictions; "
                "use engine=analytic"
            )
        if self.kind is not EngineKind.vllm and (self.args or self.cpu_fixes):
            raise ValueError("engine.args and engine.cpu_fixes are vLLM's; use engine=vllm")
        for name in ("start_timeout_s", "answer_timeout_s", "collective_timeout_s"):
            at_least(f"engine.{name}", getattr(self, name), 1)
