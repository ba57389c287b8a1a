"""The engine that predicts: the whole pipeline runs on a laptop, and nothing is timed."""

from __future__ import annotations

import math
import platform
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

from moesd_dist.engines.analytic_model import model_of, unconditional_rates
from moesd_dist.engines.analytic_ranks import OneRound, SharedExperts, rank_bytes
from moesd_dist.models.counts import known_shape
from moesd_dist.models.shape import bytes_per_value
from moesd_dist.records import (
    Infeasible,
    LayoutSpec,
    ModelSpec,
    Repeat,
    SimulationSpec,
    SweepPoint,
    WorkloadSpec,
)
from moesd_dist.theory.steps.model import Grid, RoundSeconds, StepModel

SEQUENCE_ROUNDS = 100_000  # counts are whole numbers: a rate is rounded to a part in 1e5


class AnalyticEngine:
    """Implements the `Engine` port with formulas; every record of it says it was simulated.

    Prompts stand for their lengths: nothing is read, tokenised or loaded.
    """

    def __init__(
        self,
        *,
        target: ModelSpec,
        draft: ModelSpec | None,
        simulation: SimulationSpec,
        hardware: str,
        layout: LayoutSpec,
    ) -> None:
        self._specs, self._layout = (target, draft), layout
        self._simulation, self._hardware = simulation, hardware
        self._model: StepModel = model_of(target, draft, simulation, tp_size=layout.tp_size)
        self._shared = (
            SharedExperts(self._model, target, layout, simulation) if layout.dp_size > 1 else None
        )

    def describe(self) -> Mapping[str, str]:
        how = f"fit {self._simulation.fit}" if self._simulation.fit else "zero-shot"
        devices = self._layout.tp_size * self._layout.dp_size
        name = f"{devices}x{self._hardware}, simulated, {how}"
        found = {"host": platform.node(), "device_name": name}
        try:
            return found | {"version.moesd-dist": version("moesd-dist")}
        except PackageNotFoundError:
            return found

    def infeasible(self, point: SweepPoint) -> Infeasible | None:
        """Weights and KV caches against a rank's memory; a fit knows none, so all fits."""
        tp_size = self._layout.tp_size
        memory = dict(self._simulation.device).get("memory_bytes", math.inf) * tp_size
        needed = sum(_bytes_for(spec, point) for spec in self._specs if spec is not None)
        if needed <= memory:
            return None
        each = "" if self._shared is None else "each rank "
        return Infeasible(
            point=point,
            reason=f"{each}needs {needed / 2**30:.1f} GiB of memory, {tp_size}x{self._hardware} "
            f"has {memory / 2**30:.1f} GiB",
            bytes_needed=int(needed),
            bytes_available=int(memory),
        )

    def together(self, points: Sequence[SweepPoint]) -> bool:
        """Nothing is loaded."""
        return True

    def warm_up(self, point: SweepPoint) -> None:
        """Formulas need none."""

    def measure(self, point: SweepPoint, repeat: int) -> Repeat:
        """The same for every repeat, but for the noise that was asked for."""
        generator = random.Random(f"{point.point_id} {repeat}")
        stretch = math.exp(generator.gauss(0.0, 1.0) * self._simulation.noise)
        grid, layers = grid_of(point, self._model.target.top_k), self._model.target.num_moe_layers
        if self._shared is None:
            return _repeat(point, _one_round(self._model.round_seconds(grid)), layers, stretch)
        one, verified = self._shared.round(grid)
        found = _repeat(point, one, layers, stretch)
        return replace(found, exchange=self._shared.exchange(verified, found.rounds, stretch))

    def routing(self, point: SweepPoint) -> tuple[int, int]:
        target = self._model.target
        return target.num_experts, point.top_k or target.top_k

    def close(self) -> None:
        """Nothing is held."""


def grid_of(point: SweepPoint, own_top_k: int) -> Grid:
    """The point alone."""
    return Grid(
        batch_size=point.batch_size,
        gamma=point.gamma,
        top_k=point.top_k or own_top_k,
        context_tokens=context_tokens(point.workload),
    )


def context_tokens(work: WorkloadSpec) -> float:
    """Mean length of a sequence while it is decoded: half way through its output."""
    return (work.prompt_tokens_min + work.prompt_tokens_max + work.output_tokens) / 2


def _one_round(times: RoundSeconds) -> OneRound:
    return OneRound(
        target_s=float(times.target_verify_s),
        draft_s=float(times.gamma * times.draft_step_s),
        reject_s=float(times.reject_s),
        experts=float(times.verify_experts),
    )


def _repeat(point: SweepPoint, one: OneRound, moe_layers: int, stretch: float) -> Repeat:
    """As many rounds as leave no rounding, all alike; `stretch` is of every second."""
    gamma, rounds = point.gamma, -(-SEQUENCE_ROUNDS // point.batch_size)
    sequence_rounds = rounds * point.batch_size
    rates = unconditional_rates(point.sd.synthetic_acceptance, gamma)
    per_position = tuple(round(sequence_rounds * rate) for rate in rates)
    target_s, draft_s, reject_s = (
        part * stretch for part in (one.target_s, one.draft_s, one.reject_s)
    )
    return Repeat(
        seconds=rounds * (target_s + draft_s + reject_s),
        rounds=rounds,
        tokens=sequence_rounds + sum(per_position),
        drafted=sequence_rounds * gamma,
        accepted=sum(per_position),
        accepted_per_position=per_position,
        sequence_rounds=sequence_rounds,
        draft_s=rounds * draft_s,
        target_s=rounds * target_s,
        reject_s=rounds * reject_s,
        tokens_per_forward=gamma + 1,
        median_target_s=target_s,
        median_draft_s=draft_s,
        experts_seen=(round(rounds * one.experts),) * moe_layers,
        layer_forwards=rounds * moe_layers,
        mean_context=context_tokens(point.workload),
    )


def _bytes_for(spec: ModelSpec, point: SweepPoint) -> float:
    """Of a rank, the draft whole on each: weights, and the cache of sequences that are as long as they get."""
    shape, size = known_shape(spec), bytes_per_value(spec.dtype)
    longest = point.workload.prompt_tokens_max + point.workload.output_tokens + point.gamma + 1
    sequences = -(-point.batch_size // point.layout.dp_size)
    whole, _ = rank_bytes(spec, point.layout.dp_size if spec == point.target else 1)
    return whole + sequences * longest * shape.kv_bytes_per_token(size)
