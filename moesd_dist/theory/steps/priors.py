"""Where the parameters of a step are looked for, by the size of the measured seconds alone."""

# No data sheet is needed: a rate is at least what the fastest forward achieved, and an overhead is
# some part of the forward that shows it best. One standard deviation is a factor of 2.7 for rates
# and of 4.5 for overheads. Where the device's peaks are known no rate of the target exceeds them; a
# draft's may, since its weights can stay in a cache.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.counts import ModelCounts
from moesd_dist.theory.steps.law import Forwards
from moesd_dist.theory.steps.log_fit import Link, Prior

_Floats = npt.NDArray[np.float64]

_RATE_SPREAD = 1.0
_OVERHEAD_SPREAD = 1.5
_SHARE = 0.1  # of a forward that an overhead may well be
_HEADROOM = 1.5  # of a rate above the fastest seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """What the devices that a target spans can do together, at most."""

    bytes_per_s: float
    flops: float


def target_priors(
    model: ModelCounts, forwards: Forwards, seconds: _Floats, peaks: Peaks | None = None
) -> list[Prior]:
    """All eight parameters of `Rates`, or those that the model has."""
    priors = _target_priors(model, forwards, seconds)
    return priors if peaks is None else [_below_peak(prior, peaks) for prior in priors]


def _below_peak(prior: Prior, peaks: Peaks) -> Prior:
    """A rate as an efficiency of the peak; other parameters as they are.

    A peak that forwards come near to or exceed was taken on a busy machine: theirs counts then.
    """
    if prior.name == "bytes_per_s":
        return _efficiency(prior, peaks.bytes_per_s, share=0.75, spread=0.8)  # 0.57 to 0.87
    if prior.name in ("flops", "expert_flops"):
        return _efficiency(prior, peaks.flops, share=0.4, spread=1.2)  # 0.17 to 0.69
    return prior


def _efficiency(prior: Prior, peak: float, *, share: float, spread: float) -> Prior:
    most = max(peak, prior.centre)
    return Prior(name=prior.name, centre=share * most, spread=spread, link=Link.LOGIT, most=most)


def _target_priors(model: ModelCounts, forwards: Forwards, seconds: _Floats) -> list[Prior]:
    experts = np.asarray(forwards.activated_experts, dtype=np.float64)
    batch = np.asarray(forwards.sequences, dtype=np.float64)
    priors = [*_shared(model, forwards, seconds), overhead("sequence_s", seconds / batch)]
    if not model.num_experts:
        return priors
    per_expert = overhead("expert_s", seconds / (experts * model.num_moe_layers))
    return [*priors, per_expert, rate("expert_flops", _operations(model, forwards), seconds)]


def draft_priors(model: ModelCounts, forwards: Forwards, seconds: _Floats) -> list[Prior]:
    """A draft takes one token a sequence, or two: tokens and sequences are the same to it."""
    return [*_shared(model, forwards, seconds), overhead("round_s", seconds)]


def reject_priors(batch: _Floats, gamma: _Floats, seconds: _Floats) -> list[Prior]:
    """Of `RejectLaw`."""
    return [
        overhead("step_s", seconds),
        overhead("round_s", seconds[gamma > 0]),  # only speculation pays it
        overhead("sequence_s", seconds / batch),
        overhead("token_s", seconds / (batch * (gamma + 1.0))),
    ]


ROUTING_PRIORS = (
    Prior(name="popularity", centre=30.0, spread=1.5),
    Prior(name="fresh_share", centre=0.75, spread=1.0, link=Link.LOGIT),
)


def _shared(model: ModelCounts, forwards: Forwards, seconds: _Floats) -> list[Prior]:
    tokens = _tokens(forwards)
    priors = [overhead("forward_s", seconds), overhead("token_s", seconds / tokens)]
    if not model.streamed_non_expert_params:
        return priors
    return [
        *priors,
        rate("bytes_per_s", _bytes(model, forwards), seconds),
        rate("flops", _operations(model, forwards), seconds),
        Prior(name="overlap", centre=2.0, spread=1.0, link=Link.ABOVE_ONE),
    ]


def overhead(name: str, seconds: _Floats) -> Prior:
    """The forward that shows it best has the least seconds per unit."""
    return Prior(name=name, centre=_SHARE * float(seconds.min()), spread=_OVERHEAD_SPREAD)


def rate(name: str, work: _Floats, seconds: _Floats) -> Prior:
    fastest = float((work / seconds).max())
    return Prior(name=name, centre=_HEADROOM * fastest, spread=_RATE_SPREAD)


def _tokens(forwards: Forwards) -> _Floats:
    return np.asarray(forwards.sequences, np.float64) * np.asarray(forwards.tokens_each, np.float64)


def _bytes(model: ModelCounts, forwards: Forwards) -> _Floats:
    experts = np.asarray(forwards.activated_experts, dtype=np.float64) * model.num_moe_layers
    read = model.streamed_non_expert_params + experts * model.expert_params
    return np.asarray(model.bytes_per_value * read * np.ones_like(_tokens(forwards)))


def _operations(model: ModelCounts, forwards: Forwards) -> _Floats:
    chosen = np.asarray(forwards.top_k, dtype=np.float64) * model.num_moe_layers
    passed = model.streamed_non_expert_params + chosen * model.expert_params
    return np.asarray(2.0 * passed * _tokens(forwards))
