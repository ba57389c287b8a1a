"""The engine that predicts: the whole pipeline runs on a laptop, and nothing is timed."""

from __future__ import annotations

import math
import platform
import random
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from moesd_dist.engines.analytic_model import model_of, unconditional_rates
from moesd_dist.engines.analytic_ranks import SharedExperts, rank_bytes
from moesd_dist.engines.analytic_rounds import OneRound, Rounds, context_tokens, one_rounds
from moesd_dist.models.counts import known_shape
from moesd_dist.models.shape import bytes_per_value
from moesd_dist.records import (
    Exchange,
    Infeasible,
    LayoutSpec,
    ModelSpec,
    Repeat,
    SimulationSpec,
    SweepPoint,
)
from moesd_dist.theory.steps.model import StepModel

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
        self._alone = Rounds(
            self._model.target.top_k, lambda grid: one_rounds(self._model.round_seconds(grid))
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
        stretch, layers = self._stretch(point, repeat), self._model.target.num_moe_layers
        if self._shared is None:
            return _repeat(point, self._alone.of(point), layers, stretch)
        one, mean = self._shared.rounds.of(point)
        exchange = self._shared.exchange(mean, _rounds(point), stretch)
        return _repeat(point, one, layers, stretch, exchange)

    def _stretch(self, point: SweepPoint, repeat: int) -> float:
        """Of every second. Without noise nothing is drawn: a seed takes longer than all the rest."""
        if not self._simulation.noise:
            return 1.0
        generator = random.Random(f"{point.point_id} {repeat}")
        return math.exp(generator.gauss(0.0, 1.0) * self._simulation.noise)

    def routing(self, point: SweepPoint) -> tuple[int, int]:
        target = self._model.target
        return target.num_experts, point.top_k or target.top_k

    def close(self) -> None:
        """Nothing is held."""


def _rounds(point: SweepPoint) -> int:
    """As many as leave no rounding."""
    return -(-SEQUENCE_ROUNDS // point.batch_size)


def _repeat(
    point: SweepPoint,
    one: OneRound,
    moe_layers: int,
    stretch: float,
    exchange: Exchange | None = None,
) -> Repeat:
    """A window of rounds that are all alike; `stretch` is of every second."""
    gamma, rounds = point.gamma, _rounds(point)
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
        exchange=exchange,
    )


def _bytes_for(spec: ModelSpec, point: SweepPoint) -> float:
    """Of a rank, the draft whole on each: weights, and the cache of sequences that are as long as they get."""
    shape, size = known_shape(spec), bytes_per_value(spec.dtype)
    longest = point.workload.prompt_tokens_max + point.workload.output_tokens + point.gamma + 1
    sequences = -(-point.batch_size // point.layout.dp_size)
    whole, _ = rank_bytes(spec, point.layout.dp_size if spec == point.target else 1)
    return whole + sequences * longest * shape.kv_bytes_per_token(size)
