"""What a target forward waits for, and how far predictions are off in each such regime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.steps.law import Forwards
from moesd_dist.theory.steps.model import StepModel

_Floats = npt.NDArray[np.float64]

ALL_ACTIVE = 0.95  # of the experts of a layer, as the full-activation threshold


class Regime(StrEnum):
    FEW_EXPERTS = "few experts active"  # each token more wakes up more of them
    READING = "all active, reading"
    MULTIPLYING = "all active, multiplying"


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """ln(predicted / measured) of seconds: near 0.03 is 3 %."""

    mean: float
    rms: float
    forwards: int


def regimes(
    model: StepModel, forwards: Forwards, ranks: npt.ArrayLike = 1.0
) -> npt.NDArray[np.str_]:
    """The regime of each forward; a dense target has all of its experts active.

    Experts are counted over all ranks that share them, bytes and products are the mean rank's.
    """
    active = np.asarray(forwards.activated_experts, dtype=np.float64)
    few = active < ALL_ACTIVE * model.target.num_experts
    own = replace(
        forwards,
        sequences=np.asarray(forwards.sequences) / np.asarray(ranks),
        activated_experts=active / np.asarray(ranks),
    )
    longer = np.where(
        _reading_s(model, own) >= _multiplying_s(model, own),
        Regime.READING.value,
        Regime.MULTIPLYING.value,
    )
    return np.where(few, Regime.FEW_EXPERTS.value, longer)


def residuals_by_regime(
    found: npt.NDArray[np.str_], log_ratios: npt.ArrayLike
) -> Mapping[Regime, Residuals]:
    """Regimes that occur, with ln(predicted / measured) of their forwards; [forwards]."""
    logs = np.asarray(log_ratios, dtype=np.float64)
    return {r: _residuals(logs[found == r.value]) for r in Regime if np.any(found == r.value)}


def _residuals(logs: _Floats) -> Residuals:
    rms = float(np.sqrt(np.mean(logs**2)))
    return Residuals(mean=float(logs.mean()), rms=rms, forwards=logs.size)


def _reading_s(model: StepModel, forwards: Forwards) -> _Floats:
    target = model.target
    active = np.asarray(forwards.activated_experts, np.float64) * target.num_moe_layers
    cached = np.asarray(forwards.sequences, np.float64) * np.asarray(forwards.context_tokens)
    values = (
        target.streamed_non_expert_params
        + active * target.expert_params
        + cached * target.kv_values_per_token
    )
    return np.asarray(target.bytes_per_value * values / model.target_rates.bytes_per_s)


def _multiplying_s(model: StepModel, forwards: Forwards) -> _Floats:
    target, rates = model.target, model.target_rates
    tokens = np.asarray(forwards.sequences, np.float64) * np.asarray(forwards.tokens_each)
    chosen = np.asarray(forwards.top_k, np.float64) * target.num_moe_layers
    dense_s = target.streamed_non_expert_params / rates.flops
    return np.asarray(2.0 * tokens * (dense_s + chosen * target.expert_params / rates.expert_flops))
