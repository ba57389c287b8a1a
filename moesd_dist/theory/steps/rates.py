"""Rates of a forward from fitted parameters."""

from __future__ import annotations

from moesd_dist.theory.steps.law import Rates

MOST_MEANINGFUL_RATE = 1e18  # bytes/s or FLOP/s of work that a model does not have


def rates_from(values: dict[str, float]) -> Rates:
    """Rates of fitted parameters; what the model does not have costs nothing."""
    flops = values.get("flops", MOST_MEANINGFUL_RATE)
    return Rates(
        forward_s=values["forward_s"],
        expert_s=values.get("expert_s", 0.0),
        token_s=values["token_s"],
        sequence_s=values.get("sequence_s", 0.0),
        bytes_per_s=values.get("bytes_per_s", MOST_MEANINGFUL_RATE),
        flops=flops,
        expert_flops=values.get("expert_flops", flops),
        overlap=values.get("overlap", 1.0),
    )
