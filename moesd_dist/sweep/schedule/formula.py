"""What points take by the analytic model: from a device's figures and the models' sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from moesd_dist.records import SweepPoint
from moesd_dist.sweep.schedule.pace import Pace, prompts, tail_rounds, window_rounds
from moesd_dist.theory.counts import ModelCounts
from moesd_dist.theory.expert_parallel.collectives import Link, Links
from moesd_dist.theory.expert_parallel.step import EpGrid, EpModel
from moesd_dist.theory.steps.law import Forwards, Rates, forward_seconds
from moesd_dist.theory.steps.model import Grid, StepModel

PREFILL_TOKENS = 4096  # of one forward, in the transformers engine; about what vLLM takes too


@dataclass(frozen=True, slots=True, kw_only=True)
class ByFormula:
    """`model_of` gives None for a point whose models or device have no known figures."""

    model_of: Callable[[SweepPoint], StepModel | None]
    source: str = "the analytic model"

    def pace(self, point: SweepPoint) -> Pace | None:
        """Data-parallel ranks step together, each with its share of the batch."""
        model = self.model_of(point)
        if model is None:
            return None
        round_s = _round_s(model, point)
        prefill_s = _prefill_s(model.target, model.target_rates, point)
        if model.draft.num_layers:
            prefill_s += _prefill_s(model.draft, model.draft_rates, point)
        return Pace(
            window_s=round_s * window_rounds(point),
            round_s=round_s,
            end_to_end_s=round_s * tail_rounds(point),
            prefill_s=prefill_s,
        )


def _round_s(model: StepModel, point: SweepPoint) -> float:
    """Where ranks share the experts their links are taken to cost nothing: of them nothing is known."""
    work, ranks = point.workload, point.layout.dp_size
    places = {
        "gamma": point.gamma,
        "top_k": point.top_k or model.target.top_k,
        "context_tokens": (work.prompt_tokens_min + work.prompt_tokens_max + work.output_tokens)
        / 2,
    }
    if _shares_experts(point, model.target):
        free = Links(intra=Link(latency_s=0.0, bytes_per_s=math.inf), ranks_per_node=ranks)
        shared = EpGrid(batch_size=point.batch_size, ranks=ranks, **places)
        return float(EpModel(step=model, cost=free).round_seconds(shared).round_s)
    own = max(1.0, point.batch_size / ranks)
    return float(model.round_seconds(Grid(batch_size=own, **places)).round_s)


def _shares_experts(point: SweepPoint, model: ModelCounts) -> bool:
    layout = point.layout
    return model.num_experts > 0 and layout.dp_size == layout.ep_size > 1


def _prefill_s(model: ModelCounts, rates: Rates, point: SweepPoint) -> float:
    """Prompts padded to the longest, in forwards of about PREFILL_TOKENS, all experts at work."""
    longest = point.workload.prompt_tokens_max
    sequences = prompts(point) / point.layout.dp_size
    forwards = max(1.0, sequences * longest / PREFILL_TOKENS)
    held = model.num_experts
    if _shares_experts(point, model):
        held = -(-held // point.layout.ep_size)
    one = Forwards(
        sequences=sequences / forwards,
        tokens_each=longest,
        context_tokens=longest / 2,
        activated_experts=held,
        top_k=point.top_k or model.top_k,
    )
    return forwards * float(forward_seconds(model, rates, one))
