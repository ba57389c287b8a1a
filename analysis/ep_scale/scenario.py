"""A model on ranks that share its experts, by names of conf/model and conf/hardware: what is predicted from."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache

from moesd_dist import specs
from moesd_dist.engines.analytic_model import zero_shot
from moesd_dist.engines.analytic_ranks import DISPATCHES, links_of
from moesd_dist.hardware import achieved_of, device_figures, hardware_named, model_named
from moesd_dist.models.counts import counts_of
from moesd_dist.records import LayoutSpec, ModelSpec
from moesd_dist.theory.counts import ModelCounts
from moesd_dist.theory.devices.operations import Achieved
from moesd_dist.theory.expert_parallel.step import EpModel
from moesd_dist.theory.steps.model import StepModel

# As each is published and served: DeepSeek-V3 and Kimi-K2 in 8 bits, cache included; Qwen3 in 16.
DTYPES = {
    "deepseek_v3": "float8_e4m3fn",
    "kimi_k2": "float8_e4m3fn",
    "qwen3_235b_a22b": "bfloat16",
}
TITLES = {
    "deepseek_v3": "DeepSeek-V3",
    "kimi_k2": "Kimi-K2",
    "qwen3_235b_a22b": "Qwen3-235B-A22B",
}
INTERCONNECTS = {
    "H200": "H200: NVLink of 8, InfiniBand between",
    "GB200_NVL72": "GB200 NVL72: NVLink of 72, InfiniBand between",
}
FAST_SHARE = (
    0.6  # of the peak; DeepGEMM's README prints 1,550 TFLOP/s on an H800: 78 % of its 8 bits
)
BACKEND = "deepep_low_latency"  # a row for each expert, straight to its rank: SGLang's and vLLM's
MOST_RANKS = 512


class Products(StrEnum):
    """How fast weights are multiplied: nobody calibrated it for 8 bits and hundreds of rows."""

    calibrated = "as calibrated"  # 12 % of the 16-bit peak: vLLM on A800, tens of rows
    fast = "fast kernels"  # FAST_SHARE of the weights' own peak


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One target with a draft of one of its layers, on one kind of device."""

    model: str = "deepseek_v3"
    hardware: str = "H200"
    products: Products = Products.calibrated

    @property
    def title(self) -> str:
        return f"{TITLES[self.model]}, {INTERCONNECTS.get(self.hardware, self.hardware)}"

    @property
    def target(self) -> ModelCounts:
        return _target_counts(self.model)

    @property
    def draft(self) -> ModelCounts:
        """The first layer alone, its feed-forward block as wide as the experts that a token passes."""
        return _draft_counts(self.model)


def target_spec(model: str) -> ModelSpec:
    """A model of conf/model in the width that it is served in."""
    return replace(specs.model_spec(model_named(model)), dtype=DTYPES[model])


def one_layer(target: ModelSpec) -> ModelSpec:
    """A multi-token-prediction layer's size: dense, where the real one shares out its experts."""
    dense = (
        [("mlp_only_layers", json.dumps([0]))] if "mlp_only_layers" in dict(target.config) else []
    )
    return replace(target, overrides=(("num_layers", "1"), *dense))


@cache
def _target_counts(model: str) -> ModelCounts:
    return counts_of(target_spec(model))


@cache
def _draft_counts(model: str) -> ModelCounts:
    return counts_of(one_layer(target_spec(model)))


def ep_model(
    scenario: Scenario,
    *,
    hidden_share: float = 0.0,
    achieved: Achieved | None = None,
) -> EpModel:
    """From data sheets alone; `achieved` replaces what conf/hardware says an engine makes of them."""
    conf = hardware_named(scenario.hardware)
    return EpModel(
        step=tp_model(scenario, tp_size=1, achieved=achieved),
        cost=links_of(device_figures(conf), LayoutSpec(dp_size=MOST_RANKS), scenario.hardware),
        dispatch=DISPATCHES[BACKEND],
        hidden_share=hidden_share,
    )


def tp_model(scenario: Scenario, *, tp_size: int, achieved: Achieved | None = None) -> StepModel:
    """The target on tp_size devices by tensors, experts included; the draft on one."""
    conf = hardware_named(scenario.hardware)
    device, given = device_figures(conf), achieved or achieved_of(conf)
    if scenario.products is Products.fast:
        peak = device.flops * 2.0 / scenario.target.bytes_per_value  # figures are of 16 bits
        device = replace(device, flops=peak)
        given = replace(given, compute_efficiency=FAST_SHARE)
    return zero_shot(scenario.target, scenario.draft, device, given, tp_size=tp_size)
