"""How far target forwards were off that no fit had seen, and in which regime they were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.fitting.results import OURS, FitResult
from moesd_dist.theory.steps.data import StepData
from moesd_dist.theory.steps.law import Forwards
from moesd_dist.theory.validation.regimes import Regime, Residuals, regimes, residuals_by_regime
from moesd_dist.theory.validation.scores import unseen_baselines

_Floats = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForwardResiduals:
    """Verifications, and decoding where no point of the baseline was fitted; [forwards]."""

    gate_tokens: _Floats
    top_k: _Floats
    ranks: _Floats
    regime: npt.NDArray[np.str_]  # by the model of all fitted points
    logs: _Floats  # ln(predicted / measured)


def forward_residuals(result: FitResult) -> ForwardResiduals:
    """Of everything that the headline's splits held out."""
    data, found = result.sample.data, list[tuple[Forwards, _Floats, _Floats]]()
    for split, forecast in result.held_out(OURS, result.headline):
        assert forecast.times is not None  # ours predicts seconds
        decoded, verified = unseen_baselines(data, split), split.test
        for places, each, name in (
            (decoded, np.zeros(len(data)), "target_decode_s"),
            (verified, data.gamma, "target_verify_s"),
        ):
            off = np.log(getattr(forecast.times, name) / getattr(data, name))
            found.append((_forwards(data, places, each + 1.0), data.ranks[places], off[places]))
    return _joined(result, found)


def regime_residuals(result: FitResult) -> Mapping[Regime, Residuals]:
    found = forward_residuals(result)
    return residuals_by_regime(found.regime, found.logs)


def _forwards(data: StepData, places: _Indices, each: _Floats) -> Forwards:
    tokens = each[places]
    experts = np.where(tokens > 1.0, data.verify_experts[places], data.decode_experts[places])
    return Forwards(
        sequences=data.batch_size[places],
        tokens_each=tokens,
        context_tokens=data.context_tokens[places],
        activated_experts=experts,
        top_k=data.top_k[places],
    )


def _joined(result: FitResult, found: list[tuple[Forwards, _Floats, _Floats]]) -> ForwardResiduals:
    model = result.fit.model
    tokens = [np.asarray(f.sequences) * np.asarray(f.tokens_each) for f, _, _ in found]
    return ForwardResiduals(
        gate_tokens=np.concatenate(tokens),
        top_k=np.concatenate([np.asarray(f.top_k) for f, _, _ in found]),
        ranks=np.concatenate([ranks for _, ranks, _ in found]),
        regime=np.concatenate([regimes(model, f, ranks) for f, ranks, _ in found]),
        logs=np.concatenate([off for _, _, off in found]),
    )
