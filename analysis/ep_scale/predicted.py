"""Published points predicted from data sheets: nothing is fitted to them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from analysis.ep_scale.published import PublishedPoint
from analysis.ep_scale.scenario import Products, Scenario, ep_model, tp_model
from analysis.ep_scale.surface import PER_RANK
from analysis.published import read_rows
from moesd_dist.hardware import achieved_of, hardware_named
from moesd_dist.theory.devices.calibration import (
    NORMAL_95,
    Calibration,
    achieved_at,
    calibrate,
)
from moesd_dist.theory.devices.operations import Achieved
from moesd_dist.theory.expert_parallel.step import EpGrid, EpRoundSeconds
from moesd_dist.theory.steps.law import Forwards, forward_seconds
from moesd_dist.theory.steps.model import Grid, RoundSeconds

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

LEARNED_ON = "2xA800"


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """A point beside the model; [low, high] holds 95 % of what the calibration leaves open.

    The same speedup with faster products, with links hidden besides (between ranks), with no time of
    the engine's own between forwards, and with the prompts' prefill in it (where the published has).
    """

    point: PublishedPoint
    per_rank: int  # the point's own; where none was printed, the one with the highest speedup
    speedup: float
    low: float
    high: float
    fast: float
    fast_hidden: float | None
    bare: float
    end_to_end: float | None
    step_ms: float

    @property
    def error(self) -> float:
        """Predicted over published - 1."""
        return self.speedup / self.point.speedup - 1.0


def predictions(points: list[PublishedPoint]) -> list[Predicted]:
    """With intervals over what the calibration leaves open, not over links or acceptance."""
    calibration = calibrate([r.peak for r in read_rows() if r.device == LEARNED_ON])
    return [_predicted(point, calibration) for point in points]


def curve(
    point: PublishedPoint,
    batches: _Ints,
    *,
    products: Products = Products.calibrated,
    achieved: Achieved | None = None,
    hidden_share: float = 0.0,
) -> _Floats:
    """Speedups in the point's setting at these batches a rank."""
    times = _times(point, batches, products, achieved, hidden_share)
    return times.speedup(point.assumed_length / (point.gamma + 1))


def end_to_end(point: PublishedPoint, batches: _Ints) -> _Floats:
    """The same of whole requests: each waits once for the prefill of every request beside it."""
    if point.prompt_tokens is None or point.output_tokens is None:
        raise ValueError(f"{point.name} was measured while decoding alone; it has no prefill")
    times = _times(point, batches)
    prefill_s = batches * _prefill_s(point)
    plain_s = point.output_tokens * times.step_s
    sd_s = point.output_tokens / point.assumed_length * times.round_s
    return np.asarray((plain_s + prefill_s) / (sd_s + prefill_s))


def _predicted(point: PublishedPoint, calibration: Calibration) -> Predicted:
    batches = np.array(PER_RANK if point.per_rank is None else [point.per_rank])
    speedups = curve(point, batches)
    best = int(np.argmax(speedups))
    here = batches[best : best + 1]
    spread = _log_spread(point, here, calibration)
    return Predicted(
        point=point,
        per_rank=int(here[0]),
        speedup=float(speedups[best]),
        low=float(speedups[best] * math.exp(-NORMAL_95 * spread)),
        high=float(speedups[best] * math.exp(NORMAL_95 * spread)),
        fast=float(curve(point, here, products=Products.fast)[0]),
        fast_hidden=(
            float(curve(point, here, products=Products.fast, hidden_share=1.0)[0])
            if point.ranks > 1
            else None
        ),
        bare=float(curve(point, here, achieved=bare(point))[0]),
        end_to_end=float(end_to_end(point, here)[0]) if point.prompt_tokens else None,
        step_ms=1e3 * float(_times(point, here).step_s[0]),
    )


def bare(point: PublishedPoint) -> Achieved:
    """As calibrated, but nothing is scheduled, prepared or judged between forwards."""
    found = achieved_of(hardware_named(point.hardware))
    return replace(found, forward_overhead_s=0.0, round_overhead_s=0.0)


def _log_spread(
    point: PublishedPoint, here: _Ints, calibration: Calibration, width: float = 1e-3
) -> float:
    """Standard deviation of the logarithm: the calibration's covariance through the slopes."""
    steps = np.eye(len(calibration.offsets)) * width

    def log_speedup(offsets: _Floats) -> float:
        return math.log(curve(point, here, achieved=achieved_at(offsets))[0])

    centre = calibration.offsets
    rises = [log_speedup(centre + step) - log_speedup(centre - step) for step in steps]
    slope = np.array(rises) / (2.0 * width)
    return math.sqrt(float(slope @ calibration.covariance @ slope))


def _times(
    point: PublishedPoint,
    batches: _Ints,
    products: Products = Products.calibrated,
    achieved: Achieved | None = None,
    hidden_share: float = 0.0,
) -> RoundSeconds | EpRoundSeconds:
    scenario = Scenario(hardware=point.hardware, products=products)
    top_k, context = scenario.target.top_k, point.context_tokens
    if point.tp_size > 1:
        grid = Grid(batch_size=batches, gamma=point.gamma, top_k=top_k, context_tokens=context)
        model = tp_model(scenario, tp_size=point.tp_size, achieved=achieved)
        return model.round_seconds(grid)
    shared = EpGrid(
        batch_size=batches * point.ranks,
        gamma=point.gamma,
        top_k=top_k,
        context_tokens=context,
        ranks=point.ranks,
    )
    model_of_ranks = ep_model(scenario, achieved=achieved, hidden_share=hidden_share)
    return model_of_ranks.round_seconds(shared)


def _prefill_s(point: PublishedPoint) -> float:
    """One prompt alone, all its tokens in one forward that wakes every expert."""
    model = tp_model(Scenario(hardware=point.hardware), tp_size=point.tp_size)
    forward = Forwards(
        sequences=1.0,
        tokens_each=float(point.prompt_tokens or 0),
        context_tokens=0.0,
        activated_experts=float(model.target.num_experts),
        top_k=model.target.top_k,
    )
    return float(forward_seconds(model.target, model.target_rates, forward))
