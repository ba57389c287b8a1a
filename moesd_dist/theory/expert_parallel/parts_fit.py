"""Rates of a target from steps of one rank whose experts were timed apart from everything else."""

# A whole forward leaves open which of its bytes were slow to come. Ranks that share experts read fewer
# of them each and as much of the rest as before, so that the two have to be told apart.

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.counts import ModelCounts
from moesd_dist.theory.steps.fit import StepFit
from moesd_dist.theory.steps.law import Forwards, expert_seconds, forward_seconds
from moesd_dist.theory.steps.log_fit import LogFit, fit_logs
from moesd_dist.theory.steps.priors import Peaks, target_priors
from moesd_dist.theory.steps.rates import rates_from

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parts:
    """Forwards on a rank that holds every expert; arrays are [forwards].

    Raises ValueError unless every part of every forward took time.
    """

    forwards: Forwards
    rest_s: _Floats  # all but the routed experts
    expert_s: _Floats  # of all MoE layers together
    groups: _Floats  # labels of forwards that share a drift of the machine

    def __post_init__(self) -> None:
        for name in ("rest_s", "expert_s"):
            least = np.min(getattr(self, name), initial=np.inf)
            if not 0.0 < least < np.inf:
                raise ValueError(
                    f"{name} must be positive in every forward, got {least}; a forecast needs points "
                    "whose experts were timed apart: engine=transformers"
                )


def fit_parts(model: ModelCounts, parts: Parts, peaks: Peaks | None = None) -> LogFit:
    """`Rates` of the law of `steps.law`, its two sides each fitted to seconds of their own."""
    alone = replace(parts.forwards, activated_experts=0.0, top_k=0.0)
    activated, pairs = _work(parts.forwards)

    def law(values: dict[str, float]) -> _Floats:
        rates = rates_from(values)
        rest = forward_seconds(model, rates, alone)
        return np.concatenate([rest, expert_seconds(model, rates, activated, pairs)])

    whole = parts.rest_s + parts.expert_s
    return fit_logs(
        law,
        np.concatenate([parts.rest_s, parts.expert_s]),
        target_priors(model, parts.forwards, whole, peaks),
        groups=np.concatenate([parts.groups, parts.groups]),
    )


def with_parts(fit: StepFit, parts: Parts, peaks: Peaks | None = None) -> StepFit:
    """The fit with a target that was told apart; draft, rejection and routing stay."""
    return replace(fit, parts={**fit.parts, "target": fit_parts(fit.target, parts, peaks)})


def _work(forwards: Forwards) -> tuple[_Floats, _Floats]:
    """Activated experts, and token-expert pairs."""
    sequences, each, activated, top_k = (
        np.asarray(v, np.float64)
        for v in (
            forwards.sequences, forwards.tokens_each, forwards.activated_experts, forwards.top_k,
        )
    )  # fmt: skip
    return activated, top_k * sequences * each
