"""Fits the step-time model to measured rounds: target, draft, rejection and routing, each on its own seconds."""

# MoESD fits speedups, which are ratios: one time scale stays free, and five of its ten parameters
# besides (see `identifiability`). The seconds of each part are logged, so each part is fitted to
# them; only the speedup joins them again.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.counts import ModelCounts
from moesd_dist.theory.expert_parallel.ranks_fit import ALONE, SharedForwards, SharedTerms
from moesd_dist.theory.routing_law import UNIFORM, RoutingLaw
from moesd_dist.theory.steps import priors as step_priors
from moesd_dist.theory.steps.data import StepData
from moesd_dist.theory.steps.law import Forwards, Rates, forward_seconds
from moesd_dist.theory.steps.log_fit import LogFit, fit_logs
from moesd_dist.theory.steps.model import (
    FIRST_DRAFT_TOKENS,
    RejectLaw,
    StepModel,
    draft_step_seconds,
)
from moesd_dist.theory.steps.rates import rates_from as rates_from

_Floats = npt.NDArray[np.float64]

LEAST_POINTS = 4
_LEAST_S = 1e-9  # no clock sees less; a simulation may say 0
PARTS = ("target", "draft", "reject", "routing")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepFit:
    """The model and, part by part, how well its parameters are known."""

    target: ModelCounts
    draft: ModelCounts
    parts: dict[str, LogFit]  # by PARTS; no routing for a dense target
    points: int

    @property
    def model(self) -> StepModel:
        return self.model_at({name: part.offsets for name, part in self.parts.items()})

    def model_at(self, offsets: dict[str, _Floats]) -> StepModel:
        """The model at other parameters: offsets by part, as `LogFit.offsets`."""
        values = {name: part.at(offsets[name]) for name, part in self.parts.items()}
        return StepModel(
            target=self.target,
            draft=self.draft,
            target_rates=rates_from(values["target"]),
            draft_rates=rates_from(values["draft"]),
            reject=RejectLaw(**values["reject"]),
            routing=RoutingLaw(**values["routing"]) if "routing" in values else UNIFORM,
            draft_round_s=values["draft"]["round_s"],
        )


def fit_steps(
    data: StepData,
    *,
    target: ModelCounts,
    draft: ModelCounts,
    peaks: step_priors.Peaks | None = None,
    shared: SharedTerms = ALONE,
) -> StepFit:
    """The step-time model of the data; the draft is `counts.NO_MODEL` where there is none.

    Points over several ranks that share experts are fitted as such, together with those of one:
    `shared` is what is known of ranks, and the parts of one rank come out.

    Without the device's `peaks` one parameter can stand for another (see `step_identifiability`):
    good for predicting on this device, not for carrying to another.

    Raises ValueError if there are fewer than LEAST_POINTS points or one batch size only.
    """
    _check(data)
    routing = {"routing": _routing(data, target)} if target.num_experts else {}
    parts = {
        "target": _target(data, target, peaks, routing, shared),
        "draft": _draft(data.of_a_rank, draft, shared),
        "reject": _reject(data.of_a_rank, shared.slowdown(data.ranks)),
    } | routing
    return StepFit(target=target, draft=draft, parts=parts, points=len(data))


def target_forwards(data: StepData) -> tuple[Forwards, _Floats]:
    """Every baseline's decoding once, then every verification, with their seconds."""
    first = data.baselines
    forwards = Forwards(
        sequences=np.concatenate([data.batch_size[first], data.batch_size]),
        tokens_each=np.concatenate([np.ones(len(first)), data.gamma + 1.0]),
        context_tokens=np.concatenate([data.context_tokens[first], data.context_tokens]),
        activated_experts=np.concatenate([data.decode_experts[first], data.verify_experts]),
        top_k=np.concatenate([data.top_k[first], data.top_k]),
    )
    return forwards, np.concatenate([data.target_decode_s[first], data.target_verify_s])


def _target(
    data: StepData,
    model: ModelCounts,
    peaks: step_priors.Peaks | None,
    routing: dict[str, LogFit],
    shared: SharedTerms,
) -> LogFit:
    forwards, seconds = target_forwards(data)
    priors = step_priors.target_priors(model, forwards, seconds, peaks)
    ranks = np.concatenate([data.ranks[data.baselines], data.ranks])
    if np.any(ranks > 1.0):
        law = RoutingLaw(**routing["routing"].values) if routing else UNIFORM
        several = SharedForwards.known(model, forwards, ranks, law)
        return several.fit(seconds, priors, shared, groups=_groups(data))
    return fit_logs(
        lambda v: forward_seconds(model, rates_from(v), forwards),
        seconds,
        priors,
        groups=_groups(data),
    )


def _draft(data: StepData, model: ModelCounts, shared: SharedTerms) -> LogFit:
    grid, slowdown = (data.batch_size, data.gamma, data.context_tokens), shared.slowdown(data.ranks)
    seconds = np.maximum(data.draft_step_s, _LEAST_S)
    forwards = Forwards(
        sequences=data.batch_size,
        tokens_each=(data.gamma - 1.0 + FIRST_DRAFT_TOKENS) / data.gamma,
        context_tokens=data.context_tokens,
    )

    def law(v: dict[str, float]) -> _Floats:
        def own(rates: Rates) -> _Floats:
            return draft_step_seconds(model, rates, v["round_s"], grid=grid)

        return slowdown * shared.reading(data.ranks, rates_from(v), own)

    return fit_logs(
        law,
        seconds,
        step_priors.draft_priors(model, forwards, seconds),
        groups=data.group,
    )


def _reject(data: StepData, slowdown: _Floats) -> LogFit:
    first = data.baselines
    slowed = np.concatenate([slowdown[first], slowdown])
    batch = np.concatenate([data.batch_size[first], data.batch_size])
    gamma = np.concatenate([np.zeros(len(first)), data.gamma])
    seconds = np.maximum(np.concatenate([data.baseline_reject_s[first], data.reject_s]), _LEAST_S)
    priors = step_priors.reject_priors(batch, gamma, seconds)
    return fit_logs(
        lambda v: slowed * RejectLaw(**v).seconds(batch, gamma),
        seconds,
        priors,
        groups=_groups(data),
    )


def _routing(data: StepData, model: ModelCounts) -> LogFit:
    forwards, _ = target_forwards(data)
    return fit_logs(
        lambda v: RoutingLaw(**v).activated_experts(
            model.num_experts, forwards.top_k, forwards.sequences, forwards.tokens_each
        ),
        forwards.activated_experts,
        step_priors.ROUTING_PRIORS,
    )


def _groups(data: StepData) -> _Floats:
    """Labels of every baseline, then of every point: both of a group saw the same machine."""
    return np.concatenate([data.group[data.baselines], data.group])


def _check(data: StepData) -> None:
    if len(data) < LEAST_POINTS:
        raise ValueError(
            f"a fit of step times needs at least {LEAST_POINTS} points, got {len(data)};"
            " measure more points"
        )
    sizes = np.unique(data.batch_size)
    if sizes.size == 1:
        raise ValueError(
            f"a fit needs several batch sizes, got only {sizes[0]:.0f}; growth cannot be told"
            " from constants at one of them: measure another"
        )
