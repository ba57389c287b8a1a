"""A target's rates and what its ranks cost each other, fitted together to forwards on one rank and on several."""

# Links and packing are told from computing by how they grow: with bytes and layers, and not at all on
# one rank. Experts of the mean rank are as measured; how much busier the busiest is, the law says.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.counts import NO_MODEL, ModelCounts
from moesd_dist.theory.expert_parallel.collectives import ExchangeCost, Link, Links
from moesd_dist.theory.expert_parallel.dispatch import Dispatch, rows_sent, traffic
from moesd_dist.theory.expert_parallel.measured_links import Dearer
from moesd_dist.theory.expert_parallel.rank_law import RankExpectation, rank_expectation
from moesd_dist.theory.expert_parallel.round_parts import EpGrid, EpSeconds, Packing, RankWork
from moesd_dist.theory.expert_parallel.step import EpModel, Slowdown, alone
from moesd_dist.theory.routing_law import RoutingLaw
from moesd_dist.theory.steps.law import Forwards, Rates
from moesd_dist.theory.steps.log_fit import LogFit, Prior, fit_logs
from moesd_dist.theory.steps.model import RejectLaw, StepModel
from moesd_dist.theory.steps.priors import overhead, rate
from moesd_dist.theory.steps.rates import rates_from

_Floats = npt.NDArray[np.float64]

_COLLECTIVES = 3  # of a layer: counts, dispatch, combine
_CALIBRATED = 0.3  # spread of the factor by which collectives differ from their calibration
_MOST_RANKS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedTerms:
    """What is known of ranks before their forwards are fitted.

    With a calibrated `cost` its factor (`link_scale`) and packing are fitted; without one, the
    latency and rate of one link between any two ranks, which then hold packing as well.
    `memory` is what so many ranks leave each other of a rank's bytes/s beyond `slowdown`: its share,
    1 where none is said.
    """

    cost: ExchangeCost | None = None
    dispatch: Dispatch = Dispatch.ONCE_A_RANK
    slowdown: Slowdown = alone
    memory: Mapping[int, float] = field(default_factory=dict)

    def reading(self, ranks: _Floats, rates: Rates, seconds: Callable[[Rates], _Floats]) -> _Floats:
        """`seconds` of the rates as they are on so many ranks, [points]."""
        found = seconds(rates)
        for count, share in self.memory.items():
            less = replace(rates, bytes_per_s=share * rates.bytes_per_s)
            found = np.where(ranks == count, seconds(less), found)
        return found


ALONE = SharedTerms()


def shared_model(step: StepModel, values: dict[str, float], terms: SharedTerms) -> EpModel:
    """Of fitted `values` of the target (`fit.parts["target"].values`); `step` is of one rank.

    Values of one rank alone do with a calibration, taken as it is. Raises ValueError without both.
    """
    if terms.cost is not None:
        cost: ExchangeCost = Dearer(cost=terms.cost, factor=values.get("link_scale", 1.0))
    elif "link_latency_s" in values:
        link = Link(latency_s=values["link_latency_s"], bytes_per_s=values["link_bytes_per_s"])
        cost = Links(intra=link, ranks_per_node=_MOST_RANKS)
    else:
        raise ValueError(
            "a fit of one rank knows no links; give SharedTerms a calibrated cost, or fit points of "
            "several ranks as well"
        )
    packing = Packing(layer_s=values.get("pack_layer_s", 0.0), row_s=values.get("pack_row_s", 0.0))
    return CrowdedModel(
        step=step,
        cost=cost,
        dispatch=terms.dispatch,
        packing=packing,
        slowdown=terms.slowdown,
        terms=terms,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CrowdedModel(EpModel):
    """`EpModel` on ranks that leave each other less memory than cores."""

    terms: SharedTerms

    def seconds(self, grid: EpGrid, tokens_each: npt.ArrayLike, work: RankWork) -> EpSeconds:
        ranks = grid.arrays()[4]
        found = EpModel.seconds(self, grid, tokens_each, work)
        for count, share in self.terms.memory.items():
            step = self.step.moved(memory=share, compute=1.0)
            less = EpModel.seconds(replace(self, step=step), grid, tokens_each, work)
            found = _chosen(ranks == count, less, found)
        return found

    def draft_step_s(self, grid: EpGrid) -> _Floats:
        def seconds(rates: Rates) -> _Floats:
            step = replace(self.step, draft_rates=rates)
            return EpModel.draft_step_s(replace(self, step=step), grid)

        return self.terms.reading(grid.arrays()[4], self.step.draft_rates, seconds)


def _chosen(here: npt.NDArray[np.bool_], ours: EpSeconds, others: EpSeconds) -> EpSeconds:
    parts = (f.name for f in fields(EpSeconds))
    return EpSeconds(**{n: np.where(here, getattr(ours, n), getattr(others, n)) for n in parts})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SharedForwards:
    """Forwards on `ranks` ranks, [forwards], with the experts that they activate."""

    model: ModelCounts
    grid: EpGrid
    tokens_each: _Floats
    activated: _Floats  # measured, distinct on all ranks together
    experts: RankExpectation
    routing: RoutingLaw

    @classmethod
    def known(
        cls, model: ModelCounts, forwards: Forwards, ranks: _Floats, routing: RoutingLaw
    ) -> SharedForwards:
        """Of measured forwards: their mean rank's experts are the measured ones over ranks."""
        batch, each, context, activated, top_k, size = np.broadcast_arrays(
            *(np.asarray(getattr(forwards, f.name), np.float64) for f in fields(Forwards)), ranks
        )
        law = rank_expectation(
            num_experts=model.num_experts,
            top_k=top_k,
            ranks=size,
            sequences=batch,
            tokens_each=each,
            routing=routing,
        )
        mean = activated / size
        return cls(
            model=model,
            grid=EpGrid(
                batch_size=batch, gamma=0.0, top_k=top_k, context_tokens=context, ranks=size
            ),
            tokens_each=each,
            activated=activated,
            experts=replace(
                law, activated_mean=mean, activated_max=mean * law.activation_imbalance
            ),
            routing=routing,
        )

    def fit(
        self,
        seconds: _Floats,
        priors: Sequence[Prior],
        terms: SharedTerms,
        *,
        groups: npt.ArrayLike,
    ) -> LogFit:
        """`priors` are of the target's rates; those of links and packing are added."""
        more = self._calibrated(seconds) if terms.cost else self._links(seconds, terms.dispatch)
        return fit_logs(
            lambda v: self.seconds(self._model(v, terms)), seconds, [*priors, *more], groups=groups
        )

    def seconds(self, model: EpModel) -> _Floats:
        """Of every forward."""
        batch, _, top_k, _, ranks = self.grid.arrays()
        most = np.ceil(batch / ranks) * self.tokens_each
        work = RankWork(
            tokens=batch * self.tokens_each / ranks,
            most_tokens=most,
            activated_experts=self.activated,
            experts=self.experts,
            traffic=traffic(
                model.cost,
                model.dispatch,
                tokens=most,
                num_experts=self.model.num_experts,
                top_k=top_k,
                ranks=ranks,
                hidden_size=self.model.hidden_size,
                bytes_per_value=self.model.bytes_per_value,
            ),
        )
        return model.seconds(self.grid, self.tokens_each, work).total_s

    def _model(self, values: dict[str, float], terms: SharedTerms) -> EpModel:
        rates = rates_from(values)
        return shared_model(_target_alone(self.model, rates, self.routing), values, terms)

    def _calibrated(self, seconds: _Floats) -> list[Prior]:
        several, rows = self._several(Dispatch.ONCE_A_RANK)
        a_layer = seconds[several] / self.model.num_moe_layers
        return [
            Prior(name="link_scale", centre=1.0, spread=_CALIBRATED),
            overhead("pack_layer_s", a_layer),
            overhead("pack_row_s", a_layer / rows),
        ]

    def _links(self, seconds: _Floats, dispatch: Dispatch) -> list[Prior]:
        several, rows = self._several(dispatch)
        a_layer = seconds[several] / self.model.num_moe_layers
        row_bytes = 2.0 * self.model.hidden_size * self.model.bytes_per_value
        return [
            overhead("link_latency_s", a_layer / _COLLECTIVES),
            rate("link_bytes_per_s", rows * row_bytes, a_layer),
        ]

    def _several(self, dispatch: Dispatch) -> tuple[npt.NDArray[np.bool_], _Floats]:
        """Which forwards have links, and the rows that a rank sends in them."""
        batch, _, top_k, _, ranks = self.grid.arrays()
        several = ranks > 1.0
        sent = rows_sent(dispatch, self.model.num_experts, top_k, ranks)
        rows = np.ceil(batch / ranks) * self.tokens_each * sent
        return several, rows[several]


def _target_alone(model: ModelCounts, rates: Rates, routing: RoutingLaw) -> StepModel:
    """Without a draft: only the target's forwards are asked for."""
    nothing = RejectLaw(step_s=0.0, sequence_s=0.0, token_s=0.0, round_s=0.0)
    return StepModel(
        target=model,
        draft=NO_MODEL,
        target_rates=rates,
        draft_rates=rates,
        reject=nothing,
        routing=routing,
    )
