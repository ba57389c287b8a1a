"""What the analytic engine computes with: a saved fit, or a device's figures and two models' sizes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from moesd_dist.models.counts import counts_of
from moesd_dist.records import ModelSpec, SimulationSpec
from moesd_dist.theory.acceptance import unconditional_from_conditional
from moesd_dist.theory.counts import NO_MODEL, ModelCounts
from moesd_dist.theory.devices.device import DeviceFigures
from moesd_dist.theory.devices.operations import Achieved, rates_of
from moesd_dist.theory.routing_law import UNIFORM
from moesd_dist.theory.steps.law import Rates
from moesd_dist.theory.steps.model import RejectLaw, StepModel
from moesd_dist.theory.steps.saved import load_model


def model_of(
    target: ModelSpec, draft: ModelSpec | None, simulation: SimulationSpec, *, tp_size: int
) -> StepModel:
    """Raises ValueError for a fit that cannot be read or a model whose size is not known."""
    if simulation.fit:
        return load_model(Path(simulation.fit_path).read_text(encoding="utf-8"))
    return zero_shot(
        counts_of(target),
        counts_of(draft) if draft else NO_MODEL,
        DeviceFigures(**dict(simulation.device)),
        Achieved(**dict(simulation.achieved)),
        tp_size=tp_size,
    )


def zero_shot(
    target: ModelCounts,
    draft: ModelCounts,
    device: DeviceFigures,
    achieved: Achieved,
    *,
    tp_size: int,
) -> StepModel:
    """Nothing measured: the target on tp_size devices, the draft on one, experts by the uniform law.

    The sampler's time is in the target's rates (its passes over the logits).
    """
    return StepModel(
        target=target,
        draft=draft,
        target_rates=rates_of(target, device, achieved, tp_size=tp_size),
        draft_rates=_draft_rates(draft, device, achieved),
        reject=RejectLaw(
            step_s=0.0, sequence_s=0.0, token_s=0.0, round_s=achieved.round_overhead_s
        ),
        routing=UNIFORM,
    )


@lru_cache(maxsize=1024)
def unconditional_rates(conditional: tuple[float, ...], gamma: int) -> tuple[float, ...]:
    """P(position accepted) of positions 1..gamma; the last rate serves all later positions."""
    if not gamma:
        return ()
    rates = (*conditional, *conditional[-1:] * gamma)[:gamma]
    return tuple(map(float, unconditional_from_conditional(rates)))


def _draft_rates(draft: ModelCounts, device: DeviceFigures, achieved: Achieved) -> Rates:
    """One device; lookup in the text has no forward and costs nothing."""
    rates = rates_of(draft, device, achieved, tp_size=1)
    return rates if draft.num_layers else replace(rates, forward_s=0.0)
