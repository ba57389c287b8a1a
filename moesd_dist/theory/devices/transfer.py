"""What speculation gains at best on a device where it was never measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.acceptance import check_gamma, check_sigma
from moesd_dist.theory.counts import ModelCounts
from moesd_dist.theory.devices.device import DeviceFigures
from moesd_dist.theory.devices.operations import Achieved, forward_s

_Floats = npt.NDArray[np.float64]

# The batch sizes over which MoESD (arXiv 2505.19645) looks for the peak.
BATCH_SIZES: _Floats = np.array(
    [1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 80, 100], dtype=np.float64
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Two models on one kind of device: the target on tp_size of them, the draft on one.

    `context_tokens` is the mean length of a sequence while it is decoded. MoESD's prompts have 5
    to 391 tokens and its output length is not printed: 400 is our guess. 200 or 800 instead move
    a predicted peak by less than 1 %.
    """

    target: ModelCounts
    draft: ModelCounts
    device: DeviceFigures
    tp_size: int
    context_tokens: float = 400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSeconds:
    """Seconds by batch size, arrays of one shape; RoundTimes of `speedup` for a whole grid."""

    target_decode_s: _Floats
    target_verify_s: _Floats  # gamma + 1 tokens a sequence, as engines do
    draft_step_s: _Floats
    round_overhead_s: float

    def speedup(self, sigma: float, gamma: int) -> _Floats:
        """MoESD's Eq. 4 for each batch size."""
        round_s = self.target_verify_s + gamma * self.draft_step_s + self.round_overhead_s
        return sigma * (gamma + 1) * self.target_decode_s / round_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The largest speedup over a grid of batch sizes, and where it is."""

    speedup: float
    batch_size: float


def round_seconds(
    setting: Setting, achieved: Achieved, *, gamma: int, batch_sizes: _Floats = BATCH_SIZES
) -> RoundSeconds:
    """Seconds of the forwards of one round with gamma draft tokens, for each batch size."""
    check_gamma(gamma, least=0)

    def seconds(model: ModelCounts, tokens_each: int, tp_size: int) -> _Floats:
        return forward_s(
            model,
            setting.device,
            achieved,
            batch_sizes=batch_sizes,
            tokens_each=tokens_each,
            context_tokens=setting.context_tokens,
            tp_size=tp_size,
        )

    return RoundSeconds(
        target_decode_s=seconds(setting.target, 1, setting.tp_size),
        target_verify_s=seconds(setting.target, gamma + 1, setting.tp_size),
        draft_step_s=seconds(setting.draft, 1, 1),
        round_overhead_s=achieved.round_overhead_s if gamma else 0.0,
    )


def speedup_curve(
    setting: Setting,
    achieved: Achieved,
    *,
    gamma: int,
    sigma: float,
    batch_sizes: _Floats = BATCH_SIZES,
) -> _Floats:
    """Speedup for each batch size, sigma the same for all.

    Raises ValueError if gamma is negative or sigma lies outside [1 / (gamma + 1), 1].
    """
    check_gamma(gamma, least=0)
    check_sigma(sigma, gamma)
    times = round_seconds(setting, achieved, gamma=gamma, batch_sizes=batch_sizes)
    return times.speedup(sigma, gamma)


def peak_speedup(
    setting: Setting,
    achieved: Achieved,
    *,
    gamma: int,
    sigma: float,
    batch_sizes: _Floats = BATCH_SIZES,
) -> Peak:
    """The peak over the batch sizes, as MoESD's tables print it; raises as `speedup_curve` does."""
    curve = speedup_curve(setting, achieved, gamma=gamma, sigma=sigma, batch_sizes=batch_sizes)
    best = int(np.argmax(curve))
    return Peak(speedup=float(curve[best]), batch_size=float(batch_sizes[best]))
