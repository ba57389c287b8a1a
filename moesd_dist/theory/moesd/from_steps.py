"""Measured rounds as what MoESD's model is fitted to, so that both models see the same points."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.counts import ModelCounts
from moesd_dist.theory.devices.device import DeviceFigures
from moesd_dist.theory.moesd.bounds import ParameterBounds, bounds_from
from moesd_dist.theory.moesd.fit import MoesdFit, fit
from moesd_dist.theory.moesd.forward_time import Denominator, MoesdParameters, predicted_speedup
from moesd_dist.theory.moesd.points import Observations, Points, Verified
from moesd_dist.theory.moesd.scaling import NAMES
from moesd_dist.theory.steps.data import StepData
from moesd_dist.theory.steps.settings import Expected
from moesd_dist.theory.validation.forecast import Forecast

_Floats = npt.NDArray[np.float64]

_TOKEN_BYTES = 2.0  # of the weights for which a ridge point in FLOP per byte is a token count
_LEAST_REJECT_S = 1e-9  # an upper limit above 0 keeps the term; no clock sees less


@dataclass(frozen=True, slots=True, kw_only=True)
class MoesdModel:
    """MoESD's ten parameters for one target and draft on one kind of device; defaults are the paper's.

    Its lower limits are bytes over bandwidth, so it needs the device's figures and cannot be of a
    dense target or of a draft without weights: ValueError.
    """

    target: ModelCounts
    draft: ModelCounts
    figures: DeviceFigures
    tp_size: int = 1  # devices that the target spans; the draft runs on one
    verified: Verified = Verified.GAMMA
    denominator: Denominator = Denominator.EQ_4
    multistart: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.target.num_experts:
            raise ValueError("MoESD's model counts experts and the target has none; fit ours alone")
        if not self.draft.streamed_non_expert_params:
            raise ValueError("MoESD's model loads a draft and this one has no weights; fit ours alone")  # fmt: skip

    def bounds(self, longest_reject_s: float) -> ParameterBounds:
        """The paper's limits from bytes, bandwidth and the longest rejection, a mean over rounds."""
        target, draft = self.target, self.draft
        return bounds_from(
            non_ffn_bytes=target.bytes_per_value * target.streamed_non_expert_params,
            expert_bytes=target.bytes_per_value * target.expert_params,
            num_moe_layers=target.num_moe_layers,
            draft_bytes=draft.bytes_per_value * draft.streamed_non_expert_params,
            bytes_per_s=self.figures.bytes_per_s * self.tp_size,
            draft_bytes_per_s=self.figures.bytes_per_s,
            longest_reject_s=max(longest_reject_s, _LEAST_REJECT_S),
        )

    def points(self, data: StepData, sigma: npt.ArrayLike) -> Points:
        return Points(**self._places(data, sigma))

    def observations(self, data: StepData) -> Observations:
        return Observations(**self._places(data, data.sigma), speedup=data.speedup)

    def fit(self, data: StepData) -> MoesdFit:
        """Algorithm 1; ValueError if there are fewer points than parameters or one batch size."""
        return fit(
            self.observations(data),
            self.bounds(float(data.reject_s.max())),
            multistart=self.multistart,
            seed=self.seed,
            verified=self.verified,
            denominator=self.denominator,
        )

    def speedup(self, parameters: MoesdParameters, data: StepData, sigma: npt.ArrayLike) -> _Floats:
        """At the places of the data, whatever was measured there; [points]."""
        return predicted_speedup(
            parameters,
            self.points(data, sigma),
            verified=self.verified,
            denominator=self.denominator,
        )

    def forecast(self, train: StepData, points: StepData, expected: Expected) -> Forecast:
        """A `forecast.Forecaster`; speedups alone, since they fix no seconds."""
        found = self.fit(train).parameters
        return Forecast(
            speedup=self.speedup(found, points, expected.sigma),
            speedup_given_sigma=self.speedup(found, points, points.sigma),
        )

    def bootstrap(
        self, data: StepData, *, draws: int, seed: int = 0
    ) -> dict[str, tuple[float, float]]:
        """95 % percentile intervals of the ten parameters over refits to points drawn again.

        Draws with a single batch size are left out. One search each: what differs between searches
        that explain the points alike is not in it (`Identifiability` says what they leave open).
        """
        random, once = np.random.default_rng(seed), replace(self, multistart=1)
        drawn = [data.take(random.integers(len(data), size=len(data))) for _ in range(draws)]
        fits = [once.fit(d).parameters for d in drawn if np.unique(d.batch_size).size > 1]
        values = np.percentile([astuple(p) for p in fits], [2.5, 97.5], axis=0)
        return {n: (float(a), float(b)) for n, (a, b) in zip(NAMES, values.T, strict=True)}

    def _places(self, data: StepData, sigma: npt.ArrayLike) -> dict[str, Any]:
        share = self.target.bytes_per_value / _TOKEN_BYTES
        return {
            "batch_size": data.batch_size,
            "gamma": data.gamma,
            "top_k": data.top_k,
            # A rounding error may lie beyond the limits.
            "sigma": np.clip(sigma, 1.0 / (data.gamma + 1.0), 1.0),
            "num_experts": self.target.num_experts,
            "ridge_point": share * self.figures.flops / self.figures.bytes_per_s,
        }
