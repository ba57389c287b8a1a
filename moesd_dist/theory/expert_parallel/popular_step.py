"""Seconds of ranks that share experts of measured popularity, placed as they really are."""

# `EpModel` takes popular experts to fall on ranks at random. Of a model that was looked into both are
# known, which experts are popular and where they lie, so the busiest rank is simulated instead.

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped, unused-ignore]

from moesd_dist.theory.expert_parallel.placement import EMPTY, Placement
from moesd_dist.theory.expert_parallel.popularity import measured_weights
from moesd_dist.theory.expert_parallel.rank_law import RankExpectation
from moesd_dist.theory.expert_parallel.round_parts import RankWork
from moesd_dist.theory.expert_parallel.simulation import simulate_ranks
from moesd_dist.theory.expert_parallel.step import EpModel

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

Shape = tuple[int, int]
"""Sequences of a forward over all ranks, and tokens of each."""

_RACES = 8_000_000  # random numbers for one shape: draws x layers x tokens x experts
_FEWEST, _MOST = 8, 200  # draws


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Routing:
    """How a text is routed: loads float64 [layer, expert] of a long stretch of it.

    `activated` are mean distinct logical experts of a layer in one forward, where they were measured;
    simulated counts are scaled to them, so that only how they spread over ranks is simulated.
    """

    loads: _Floats
    top_k: int
    fresh_share: float  # of a further token of a sequence, as in `RoutingLaw`
    activated: Mapping[Shape, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedExpectation(RankExpectation):
    """At a known placement: a rank's activated experts are physical ones, as it records them."""

    logical: _Floats  # distinct ones of all ranks; with replicas fewer than the ranks' together


Table = Mapping[tuple[Shape, int], PlacedExpectation]
"""By the shape of a forward and the ranks."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PopularEpModel(EpModel):
    """`EpModel` with the busiest rank of a table in place of the law's; shapes have to be in it."""

    table: Table

    def _work(self, batch: _Floats, each: _Floats, top_k: _Floats, ranks: _Floats) -> RankWork:
        work = EpModel._work(self, batch, each, top_k, ranks)
        places = zip(batch.ravel(), each.ravel(), ranks.ravel(), strict=True)
        found = [self.table[(int(b), int(s)), int(r)] for b, s, r in places]
        experts = RankExpectation(
            activated_mean=_column(found, lambda e: e.activated_mean, batch.shape),
            activated_max=_column(found, lambda e: e.activated_max, batch.shape),
            load_mean=_column(found, lambda e: e.load_mean, batch.shape),
            load_max=_column(found, lambda e: e.load_max, batch.shape),
        )
        logical = _column(found, lambda e: e.logical, batch.shape)
        return replace(work, experts=experts, activated_experts=logical)


def fresh_share(
    loads: _Floats, top_k: int, activated: Mapping[Shape, float], *, most: float = 1.0
) -> float:
    """The share of an independent token that each further token of a sequence is worth.

    Nearest to the measured counts of forwards with several tokens a sequence; `most` where there
    are none. `loads` [layer, expert].
    """
    several = {shape: count for shape, count in activated.items() if shape[1] > 1}
    if not several:
        return most
    chances = np.minimum(top_k * loads / loads.sum(axis=1, keepdims=True), 1.0 - 1e-12)
    missed = np.log1p(-chances)

    def misfit(share: float) -> float:
        tokens = ((b * (1.0 + (s - 1.0) * share), n) for (b, s), n in several.items())
        logs = [np.log(-np.expm1(t * missed).sum(axis=1).mean() / n) for t, n in tokens]
        return float(np.square(logs).sum())

    found = minimize_scalar(misfit, bounds=(0.0, most), method="bounded", options={"xatol": 1e-4})
    return float(found.x)


def simulated(
    rng: np.random.Generator, routing: Routing, placement: Placement, shape: Shape
) -> PlacedExpectation:
    """Mean and busiest rank of one layer and forward, the means over layers; all are numbers."""
    sequences, each = shape
    layers, experts = routing.loads.shape
    weights = measured_weights(routing.loads, routing.top_k)
    draws = _RACES // max(1, layers * sequences * each * experts)
    found = [
        simulate_ranks(
            rng,
            placement,
            weights[layer],
            top_k=routing.top_k,
            sequences=sequences,
            tokens_each=each,
            draws=min(max(draws, _FEWEST), _MOST),
            fresh_share=routing.fresh_share,
            layer=layer,
        )
        for layer in range(layers)
    ]
    logical, mean, most = (
        float(np.mean([getattr(s, name).mean for s in found]))
        for name in ("logical", "activated_mean", "activated_max")
    )
    scale = routing.activated.get(shape, logical) / logical
    return PlacedExpectation(
        logical=np.asarray(scale * logical),
        activated_mean=np.asarray(scale * mean),
        activated_max=np.asarray(min(scale * most, _room(placement))),
        load_mean=np.asarray(found[0].load_mean),
        load_max=np.asarray(np.mean([s.load_max.mean for s in found])),
    )


def _room(placement: Placement) -> float:
    """Experts on the fullest rank, the mean over layers: scaled counts must not exceed it."""
    filled = placement.physical_to_logical.reshape(-1, placement.ranks, placement.slots_per_rank)
    return float((filled != EMPTY).sum(axis=-1).max(axis=-1).mean())


def _column(
    found: list[PlacedExpectation],
    value: Callable[[PlacedExpectation], _Floats],
    shape: tuple[int, ...],
) -> _Floats:
    return np.array([float(value(e)) for e in found]).reshape(shape)
