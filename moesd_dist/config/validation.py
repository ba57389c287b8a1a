"""How a forecast of expert-parallel points is made and how near it has to come."""

from __future__ import annotations

from dataclasses import dataclass

from moesd_dist.config.checks import at_least

TOLERANCES = (
    "activated_experts",
    "load_imbalance",
    "communication",
    "target_efficiency",
    "speedup",
)


@dataclass
class ValidationConf:
    """Tolerances are relative: 0.1 allows a prediction 10 % away from the measured value."""

    calibration: str = (
        ""  # a file of `moesd-dist`'s calibration; empty: measured when the sweep starts
    )
    activated_experts: float = 0.03
    load_imbalance: float = 0.10
    communication: float = 0.25
    target_efficiency: float = 0.10
    speedup: float = 0.10
    seed: int = 0  # of the simulated routing

    @property
    def tolerances(self) -> dict[str, float]:
        """By name: what a forecast is judged by, written down with it."""
        return {name: getattr(self, name) for name in TOLERANCES}

    def __post_init__(self) -> None:
        for name in TOLERANCES:
            at_least(f"validation.{name}", getattr(self, name), 0)
